//! What a request must look like before anything of it is read. Pure; owns the rules that the protocol layer leaves open.
//!
//! # Design notes
//! The protocol layer verifies signatures, but takes headers that were not signed, signatures of version 2, any region, and
//! browser forms, which it collects in memory before it checks who sent them. An unsigned `x-amz-copy-source` would turn a
//! URL for an upload into a copy of somebody else's object, so every `x-amz-*` header must be signed, as with S3 itself.

use std::borrow::Cow;

use diagbot_wire::upload::MOST_BYTES_PARAMETER;
use http::{HeaderMap, Method, Uri, header};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// S3 signs for at most seven days.
const LONGEST_EXPIRY_S: u32 = 7 * 24 * 3600;

/// How a request claims to be signed; the protocol layer verifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "signed by whom")]
pub(super) enum Signed {
    /// Not at all.
    ByNobody,
    /// With the account's key, in a header: by the bot.
    ByAccount,
    /// By its URL: by whoever holds it.
    ByUrl(UrlTerms),
}

/// What a URL allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UrlTerms {
    pub(super) ends_at: Timestamp,
    /// The longest body, where the signature names one.
    pub(super) most_bytes: Option<u64>,
}

/// Lets a request pass or says why not.
pub(super) fn admit(method: &Method, uri: &Uri, headers: &HeaderMap, region: &str) -> S3Result<Signed> {
    refuse_forms(method, headers)?;
    let query: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
    let parameter = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
    };
    let authorization = match headers.get(header::AUTHORIZATION) {
        Some(value) => Some(
            value
                .to_str()
                .map_err(|_| denied("the Authorization header is not text"))?,
        ),
        None => None,
    };
    let old = query
        .iter()
        .any(|(key, _)| key == "Signature" || key == "AWSAccessKeyId");
    if old || authorization.is_some_and(|value| !value.starts_with("AWS4-HMAC-SHA256")) {
        return Err(denied("only signatures of version 4 are taken"));
    }
    match (parameter("X-Amz-Signature"), authorization) {
        (Some(_), Some(_)) => Err(denied("the request is signed twice")),
        (Some(_), None) => {
            let lifetime = check_expiry(parameter("X-Amz-Expires"))?;
            let ends_at = check_date(parameter("X-Amz-Date"))?
                .checked_add(lifetime)
                .map_err(|_| malformed("X-Amz-Date is out of range"))?;
            let most_bytes = parameter(MOST_BYTES_PARAMETER).map(check_most_bytes).transpose()?;
            check_region(parameter("X-Amz-Credential"), region)?;
            check_signed(headers, parameter("X-Amz-SignedHeaders"))?;
            Ok(Signed::ByUrl(UrlTerms { ends_at, most_bytes }))
        }
        (None, Some(value)) => {
            check_region(field(value, "Credential"), region)?;
            check_signed(headers, field(value, "SignedHeaders"))?;
            Ok(Signed::ByAccount)
        }
        // The protocol layer refuses what nobody signed.
        (None, None) => Ok(Signed::ByNobody),
    }
}

fn refuse_forms(method: &Method, headers: &HeaderMap) -> S3Result<()> {
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"multipart/"));
    if *method == Method::POST && is_form {
        return Err(S3Error::with_message(
            S3ErrorCode::NotImplemented,
            "uploads by browser forms are not supported",
        ));
    }
    Ok(())
}

fn check_expiry(seconds: Option<&str>) -> S3Result<SignedDuration> {
    match seconds.and_then(digits).map(u32::try_from) {
        Some(Ok(seconds @ 1..=LONGEST_EXPIRY_S)) => Ok(SignedDuration::from_secs(i64::from(seconds))),
        _ => Err(malformed("X-Amz-Expires must be 1 to 604800 seconds")),
    }
}

/// When a URL was signed, `20261122T101500Z`. How far that may lie in the future is for the protocol layer to judge.
fn check_date(text: Option<&str>) -> S3Result<Timestamp> {
    let plain = |text: &&str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'T' | b'Z'))
    };
    text.filter(|text| text.len() == "20261122T101500Z".len())
        .filter(plain)
        .and_then(|text| DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok())
        .and_then(|time| time.to_zoned(TimeZone::UTC).ok())
        .map(|time| time.timestamp())
        .ok_or_else(|| malformed("X-Amz-Date must be a time like 20261122T101500Z"))
}

fn check_most_bytes(text: &str) -> S3Result<u64> {
    digits(text).ok_or_else(|| malformed("x-diagbot-most-bytes must be a number of bytes"))
}

/// A number of digits only; `parse` would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn malformed(message: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::AuthorizationQueryParametersError, message)
}

/// A credential is `<access key>/<date>/<region>/s3/aws4_request`.
fn check_region(credential: Option<&str>, region: &str) -> S3Result<()> {
    let mut scope = credential.unwrap_or_default().rsplit('/');
    let found = (scope.next(), scope.next(), scope.next());
    if found == (Some("aws4_request"), Some("s3"), Some(region)) {
        return Ok(());
    }
    Err(S3Error::with_message(
        S3ErrorCode::AuthorizationHeaderMalformed,
        format!("the signature's scope must be s3 in the region {region}"),
    ))
}

fn check_signed(headers: &HeaderMap, signed: Option<&str>) -> S3Result<()> {
    let signed: Vec<String> = signed
        .unwrap_or_default()
        .split(';')
        .map(str::to_ascii_lowercase)
        .collect();
    let is_signed = |name: &str| signed.iter().any(|word| word == name);
    if !is_signed("host") {
        return Err(denied("the host must be signed"));
    }
    for name in headers.keys().map(header::HeaderName::as_str) {
        if name.starts_with("x-amz-") && !is_signed(name) {
            return Err(denied(
                "there were headers present in the request which were not signed",
            ));
        }
    }
    Ok(())
}

/// `Credential=…` of an Authorization header.
fn field<'a>(authorization: &'a str, name: &str) -> Option<&'a str> {
    let (_, fields) = authorization.split_once(' ')?;
    fields
        .split(',')
        .filter_map(|field| field.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn denied(message: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::AccessDenied, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "/b/k?X-Amz-Credential=K%2F20261122%2Feu%2Fs3%2Faws4_request&X-Amz-Date=20261122T101500Z&X-Amz-Expires=60&X-Amz-Signature=0";

    fn outcome(uri: &str, headers: &[(&'static str, &'static str)]) -> Result<(), String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        admitted(uri, &map).map(|_| ())
    }

    fn admitted(uri: &str, headers: &HeaderMap) -> Result<Signed, String> {
        admit(&Method::PUT, &uri.parse().unwrap(), headers, "eu").map_err(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn presigned_requests_bring_no_unsigned_amz_header() {
        let uri = format!("{LINK}&X-Amz-SignedHeaders=host");
        assert_eq!(outcome(&uri, &[("content-md5", "x"), ("x-other", "1")]), Ok(()));
        assert!(outcome(&uri, &[("x-amz-copy-source", "/b/other")]).is_err());
        let signed = format!("{LINK}&X-Amz-SignedHeaders=host%3Bx-amz-meta-a");
        assert_eq!(outcome(&signed, &[("x-amz-meta-a", "1")]), Ok(()));
    }

    #[test]
    fn signed_requests_bring_no_unsigned_amz_header_either() {
        let signed =
            "AWS4-HMAC-SHA256 Credential=K/20261122/eu/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=0";
        let with = |name| outcome("/b/k", &[("authorization", signed), ("x-amz-date", "d"), (name, "1")]);
        assert_eq!(with("accept"), Ok(()));
        assert!(with("x-amz-copy-source").is_err());
    }

    #[test]
    fn other_regions_services_and_old_signatures_are_refused() {
        let scope = |text: &str| {
            let uri = format!(
                "/b/k?X-Amz-Credential=K/20261122/{text}&X-Amz-Date=20261122T101500Z&X-Amz-Expires=60&X-Amz-Signature=0&X-Amz-SignedHeaders=host"
            );
            outcome(&uri, &[])
        };
        assert_eq!(scope("eu/s3/aws4_request"), Ok(()));
        assert!(scope("us/s3/aws4_request").is_err());
        assert!(scope("eu/sts/aws4_request").is_err());
        assert!(outcome("/b/k?AWSAccessKeyId=K&Signature=x&Expires=9999999999", &[]).is_err());
        assert!(outcome("/b/k", &[("authorization", "AWS K:sig")]).is_err());
        let both = format!("{LINK}&X-Amz-SignedHeaders=host");
        assert!(outcome(&both, &[("authorization", "AWS4-HMAC-SHA256 x")]).is_err());
    }

    #[test]
    fn links_live_a_week_at_most() {
        let malformed = Err("AuthorizationQueryParametersError".to_owned());
        for wrong in [
            "604801",
            "0",
            "+60",
            "%2B60",
            "-60",
            "60s",
            "60.0",
            "%2060",
            "",
            "99999999999999999999",
        ] {
            let uri = LINK.replace("Expires=60", &format!("Expires={wrong}"));
            let uri = format!("{uri}&X-Amz-SignedHeaders=host");
            assert_eq!(outcome(&uri, &[]), malformed, "{wrong}");
        }
        for wrong in [
            "20261122T101500",
            "20261122T1015001",
            "20261322T101500Z",
            "+0261122T101500Z",
            "",
        ] {
            let uri = LINK.replace("20261122T101500Z", wrong);
            let uri = format!("{uri}&X-Amz-SignedHeaders=host");
            assert_eq!(outcome(&uri, &[]), malformed, "{wrong}");
        }
    }

    #[test]
    fn a_url_says_when_it_ends_and_how_much_it_takes() {
        let terms = |more: &str| {
            let uri = format!("{LINK}&X-Amz-SignedHeaders=host{more}");
            admitted(&uri, &HeaderMap::new())
        };
        let ends_at = "2026-11-22T10:16:00Z".parse().unwrap();
        let url = |most_bytes| Ok(Signed::ByUrl(UrlTerms { ends_at, most_bytes }));
        assert_eq!(terms(""), url(None));
        assert_eq!(terms("&x-diagbot-most-bytes=8388608"), url(Some(8_388_608)));
        assert!(terms("&x-diagbot-most-bytes=+1").is_err());
    }

    #[test]
    fn browser_forms_are_refused_before_they_are_read() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "Multipart/form-data; boundary=x".parse().unwrap());
        assert!(admit(&Method::POST, &"/b".parse().unwrap(), &headers, "eu").is_err());
    }
}
