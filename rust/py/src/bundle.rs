//! Splitting FHIR JSON, as Python sees it.

use ehrfast_core::bundle::{self, BundleError, Fault, MAX_RESOURCE_BYTES, Resource, Split, Text};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::Buffer;
use crate::errors::{Detail, Kind, Named, raise};

impl Named for BundleError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn code(&self) -> &'static str {
        match self {
            BundleError::InvalidUtf8 { .. } => Fault::InvalidUtf8.code(),
            BundleError::InvalidJson { .. } => Fault::InvalidJson.code(),
            BundleError::InvalidBundle { .. } => "fhir.invalid_bundle",
            BundleError::Refused { fault, .. } => fault.code(),
            BundleError::TooLarge { .. } => Fault::ResourceTooLarge.code(),
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match *self {
            BundleError::InvalidUtf8 { offset }
            | BundleError::InvalidJson { offset }
            | BundleError::InvalidBundle { offset }
            | BundleError::Refused { offset, .. } => vec![("offset", Detail::Number(offset as u64))],
            BundleError::TooLarge { bytes, limit } => {
                vec![("bytes", Detail::Number(bytes as u64)), ("limit_bytes", Detail::Number(limit as u64))]
            }
        }
    }
}

type Row<'a> = (&'static str, Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>);

#[pyclass(frozen, module = "ehrfast._core")]
pub struct Resources {
    data: Py<PyBytes>,
    split: Split,
}

impl Resources {
    /// The document as `bytes` (an array is copied once), split with the GIL released.
    fn of<E>(py: Python<'_>, data: Buffer<'_>, split: impl FnOnce(&[u8]) -> Result<Split, E> + Send) -> PyResult<Self>
    where
        E: Named + Send,
    {
        let data = match data {
            Buffer::Bytes(bytes) => bytes,
            other => PyBytes::new(py, other.as_slice()?),
        };
        let document = data.as_bytes();
        let split = py.detach(|| split(document)).map_err(raise)?;
        Ok(Resources { data: data.unbind(), split })
    }

    fn at(&self, index: usize) -> PyResult<&Resource> {
        self.split.resources.get(index).ok_or_else(|| PyIndexError::new_err(index))
    }

    fn texts<'a>(&'a self, data: &'a [u8], pick: impl Fn(&'a Resource) -> Option<&'a Text>) -> Vec<Option<&'a str>> {
        self.split.resources.iter().map(|resource| pick(resource).map(|text| text.as_str(data))).collect()
    }
}

#[pymethods]
impl Resources {
    #[getter]
    fn kind(&self) -> &'static str {
        self.split.kind
    }

    fn __len__(&self) -> usize {
        self.split.resources.len()
    }

    fn __repr__(&self) -> String {
        let (held, refused) = (self.split.resources.len(), self.split.rejected.len());
        format!("<Resources {} held={held} rejected={refused}>", self.split.kind)
    }

    #[getter]
    fn data(&self, py: Python<'_>) -> Py<PyBytes> {
        self.data.clone_ref(py)
    }

    #[getter]
    fn spans<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u64>>> {
        let spans = self.split.resources.iter();
        let ends = spans.flat_map(|resource| [resource.span.start as u64, resource.span.end as u64]).collect();
        let array = PyArray1::from_vec(py, ends).reshape([self.split.resources.len(), 2])?;
        array.readwrite().make_nonwriteable();
        Ok(array)
    }

    #[getter]
    fn entries<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        let numbers = self.split.resources.iter().map(|resource| resource.entry as u64).collect();
        let array = PyArray1::from_vec(py, numbers);
        array.readwrite().make_nonwriteable();
        array
    }

    fn content<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let span = self.at(index)?.span.clone();
        Ok(PyBytes::new(py, self.data.as_bytes(py).get(span).unwrap_or_default()))
    }

    fn rows<'a>(&'a self, py: Python<'a>) -> Vec<Row<'a>> {
        let data = self.data.as_bytes(py);
        let text = |text: &'a Option<Text>| text.as_ref().map(|text| text.as_str(data));
        let rows = self.split.resources.iter().map(|resource| {
            (
                resource.resource_type,
                text(&resource.id),
                text(&resource.full_url),
                text(&resource.patient),
                text(&resource.method),
            )
        });
        rows.collect()
    }

    fn request_urls<'a>(&'a self, py: Python<'a>) -> Vec<Option<&'a str>> {
        self.texts(self.data.as_bytes(py), |resource| resource.url.as_ref())
    }

    fn rejected(&self) -> Vec<(usize, &'static str)> {
        self.split.rejected.iter().map(|(entry, fault)| (*entry, fault.code())).collect()
    }
}

#[pyfunction]
#[pyo3(signature = (data, *, max_resource_bytes = MAX_RESOURCE_BYTES))]
fn split_resources(py: Python<'_>, data: Buffer<'_>, max_resource_bytes: usize) -> PyResult<Resources> {
    Resources::of(py, data, |data| bundle::split_resources(data, max_resource_bytes))
}

#[pyfunction]
#[pyo3(signature = (data, *, max_resource_bytes = MAX_RESOURCE_BYTES))]
fn split_ndjson(py: Python<'_>, data: Buffer<'_>, max_resource_bytes: usize) -> PyResult<Resources> {
    Resources::of(py, data, |data| Ok::<_, BundleError>(bundle::split_ndjson(data, max_resource_bytes)))
}

#[pyfunction]
#[pyo3(signature = (data, *, max_resource_bytes = MAX_RESOURCE_BYTES))]
fn describe_resource(
    py: Python<'_>,
    data: Buffer<'_>,
    max_resource_bytes: usize,
) -> PyResult<(&'static str, Option<String>, Option<String>)> {
    let data = data.as_slice()?;
    let resource = py.detach(|| bundle::describe_resource(data, max_resource_bytes)).map_err(raise)?;
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.as_str(data).to_owned());
    Ok((resource.resource_type, text(&resource.id), text(&resource.patient)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Resources>()?;
    module.add_function(wrap_pyfunction!(split_resources, module)?)?;
    module.add_function(wrap_pyfunction!(split_ndjson, module)?)?;
    module.add_function(wrap_pyfunction!(describe_resource, module)?)
}
