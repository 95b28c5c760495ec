//! The splitter against serde_json, which knows nothing of FHIR but all of JSON.

use ehrfast_core::bundle::{
    BundleError, Fault, MAX_DEPTH, MAX_RESOURCE_BYTES, Split, describe_resource, split_ndjson, split_resources,
};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

fn split(data: &[u8]) -> Result<Split, BundleError> {
    split_resources(data, MAX_RESOURCE_BYTES)
}

fn is_json(data: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(data).is_ok()
}

fn grammar_fault(result: &Result<Split, BundleError>) -> bool {
    matches!(result, Err(BundleError::InvalidJson { .. } | BundleError::InvalidUtf8 { .. }))
}

const BUNDLE: &str = r#" {"resourceType":"Bundle","type":"batch","entry":[
    {"fullUrl":"urn:uuid:1","resource":{"resourceType":"Flag","id":"f","subject":{"reference":"Patient/1"}},
     "request":{"method":"POST","url":"Flag"}},
    {"resource" : { "id" : "p-1.x" , "resourceType" : "Patient" , "n" : [ -0.5e+3, true, false, null, "\u00e9\"\\" ] } }
], "x":{}} "#;

#[test]
fn ranges_are_those_of_raw_values() {
    #[derive(serde::Deserialize)]
    struct Bundle<'a> {
        #[serde(borrow)]
        entry: Vec<Entry<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        resource: &'a RawValue,
    }
    let read: Bundle<'_> = serde_json::from_str(BUNDLE).unwrap();
    let found = split(BUNDLE.as_bytes()).unwrap();
    let ranges: Vec<_> = found.resources.iter().map(|resource| &BUNDLE[resource.span.clone()]).collect();
    assert_eq!(ranges, read.entry.iter().map(|entry| entry.resource.get()).collect::<Vec<_>>());
    let text = |text: &Option<ehrfast_core::bundle::Text>| text.as_ref().unwrap().as_str(BUNDLE.as_bytes()).to_owned();
    assert_eq!(text(&found.resources[0].patient), "Patient/1");
    assert_eq!(text(&found.resources[0].url), "Flag");
    assert_eq!(text(&found.resources[1].patient), "Patient/p-1.x");
}

#[test]
fn nesting_is_bounded_without_a_stack() {
    for levels in [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 64 * 3, 64 * 3 + 1, 1_000_000] {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        let single = format!(r#"{{"resourceType":"Flag","a":{open}{close}}}"#);
        let found = split(single.as_bytes());
        if levels < MAX_DEPTH {
            assert_eq!(found.unwrap().resources.len(), 1);
        } else {
            assert!(matches!(found, Err(BundleError::Refused { fault: Fault::TooDeep, .. })), "{levels}");
        }
        let (open, close) = (r#"{"a":["#.repeat(levels), "]}".repeat(levels));
        let bundle = format!(
            r#"{{"resourceType":"Bundle","type":"batch","entry":[{{"resource":{{"resourceType":"Flag","a":{open}{close}}}}},
            {{"resource":{{"resourceType":"Flag"}}}}]}}"#
        );
        let found = split(bundle.as_bytes()).unwrap();
        assert_eq!(found.rejected, [(0, Fault::TooDeep)], "the entry after it is kept");
        assert_eq!(found.resources.len(), 1);
        let wrong = single.replacen(']', "}", 1);
        assert!(grammar_fault(&split(wrong.as_bytes())), "every bracket is matched, at any depth");
    }
}

#[test]
fn cut_anywhere_it_is_not_json() {
    let whole = BUNDLE.trim_end();
    for end in 0..whole.len() {
        assert!(grammar_fault(&split(&whole.as_bytes()[..end])), "{end}");
    }
}

proptest! {
    #[test]
    fn json_is_what_serde_json_reads(inner in r#"[{}\[\]",:\\u tn0-9eE+.a-]{0,40}"#) {
        let data = format!(r#"{{"resourceType":"Flag","a":{inner}}}"#);
        prop_assert_eq!(!grammar_fault(&split(data.as_bytes())), is_json(data.as_bytes()), "{}", data);
    }

    #[test]
    fn mutations_are_judged_as_serde_json_judges_them(at in 0..BUNDLE.len(), byte: u8, insert: bool) {
        let mut data = BUNDLE.as_bytes().to_vec();
        if insert { data.insert(at, byte) } else { data[at] = byte }
        prop_assert_eq!(!grammar_fault(&split(&data)), is_json(&data));
    }

    #[test]
    fn no_bytes_panic(data: Vec<u8>) {
        let _ = split(&data);
        let _ = describe_resource(&data, 100);
        let lines = split_ndjson(&data, 100);
        prop_assert!(lines.resources.len() + lines.rejected.len() <= data.split(|byte| *byte == b'\n').count());
    }

    #[test]
    fn what_is_kept_is_the_bytes_received(values in prop::collection::vec(any::<(i32, String, bool)>(), 0..9)) {
        let made: Vec<Value> = values
            .iter()
            .map(|(number, text, flag)| serde_json::json!({"resourceType": "Flag", "n": number, "t": text, "f": flag}))
            .collect();
        let entries: Vec<Value> = made.iter().map(|made| serde_json::json!({"resource": made})).collect();
        let bundle = serde_json::json!({"resourceType": "Bundle", "type": "collection", "entry": entries});
        for data in [serde_json::to_vec(&bundle).unwrap(), serde_json::to_vec_pretty(&bundle).unwrap()] {
            let found = split(&data).unwrap();
            prop_assert_eq!(found.rejected.len(), 0);
            for (resource, made) in found.resources.iter().zip(&made) {
                let read: Value = serde_json::from_slice(&data[resource.span.clone()]).unwrap();
                prop_assert_eq!(&read, made);
            }
        }
    }
}
