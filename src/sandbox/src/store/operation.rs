//! Which of S3's operations a request is. Pure.

use http::Method;
use serde::{Deserialize, Serialize};

/// An operation of the store, as faults name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// `CreateMultipartUpload`.
    OpenUpload,
    /// `UploadPart`.
    UploadPart,
    /// `CompleteMultipartUpload`.
    CompleteUpload,
    /// `AbortMultipartUpload`.
    AbortUpload,
    /// `ListParts`.
    ListParts,
    /// `ListMultipartUploads`.
    ListUploads,
    /// `PutObject`.
    Put,
    /// `GetObject`.
    Get,
    /// `HeadObject`.
    Head,
    /// `DeleteObject`.
    Delete,
}

impl Operation {
    /// Of a path-style request: `/<bucket>/<key>`.
    pub(super) fn of(method: &Method, query: &str) -> Self {
        let has = |name: &str| url::form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == name);
        let upload = has("uploadId");
        match *method {
            Method::POST if has("uploads") => Self::OpenUpload,
            Method::POST => Self::CompleteUpload,
            Method::PUT if upload => Self::UploadPart,
            Method::PUT => Self::Put,
            Method::DELETE if upload => Self::AbortUpload,
            Method::DELETE => Self::Delete,
            Method::HEAD => Self::Head,
            _ if upload => Self::ListParts,
            _ if has("uploads") => Self::ListUploads,
            _ => Self::Get,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_known_by_method_and_query() {
        for (method, query, expected) in [
            (Method::POST, "uploads", Operation::OpenUpload),
            (Method::PUT, "partNumber=1&uploadId=a", Operation::UploadPart),
            (Method::POST, "uploadId=a", Operation::CompleteUpload),
            (Method::DELETE, "uploadId=a", Operation::AbortUpload),
            (Method::GET, "uploadId=a", Operation::ListParts),
            (Method::GET, "uploads=&prefix=x", Operation::ListUploads),
            (Method::PUT, "X-Amz-Signature=a", Operation::Put),
            (Method::GET, "", Operation::Get),
        ] {
            assert_eq!(Operation::of(&method, query), expected, "{method} {query}");
        }
    }
}
