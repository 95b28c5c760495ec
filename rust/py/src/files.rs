//! Failures of the file system, as every store reports them: full, read-only, or an error of the device.

use std::io;

use crate::errors::{Detail, Kind, Named};

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
const EROFS: i32 = 30;

impl Named for io::Error {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }

    fn code(&self) -> &'static str {
        match (self.raw_os_error(), self.kind()) {
            (Some(ENOSPC | EDQUOT), _) | (_, io::ErrorKind::StorageFull) => "store.full",
            (Some(EROFS), _) | (_, io::ErrorKind::PermissionDenied) => "store.read_only",
            _ => "store.io",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        let mut details = Vec::new();
        if let Some(errno) = self.raw_os_error() {
            details.push(("errno", Detail::Number(u64::from(errno.unsigned_abs()))));
        }
        if self.code() == "store.io" {
            details.push(("retryable", Detail::Flag(false)));
        }
        details
    }
}
