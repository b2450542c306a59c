//! Lists of objects: sorted, in pages, grouped by a delimiter.

use std::{collections::BTreeSet, io, sync::Arc};

use s3s::{
    S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{CommonPrefix, ETag, ListObjectsV2Input, ListObjectsV2Output, Object},
};

use super::{disk::Disk, names::ObjectName, receive::blocking, terms::wire_time};

/// Keys and common prefixes in one answer, S3's limit.
const PAGE: usize = 1000;

pub(super) async fn list(
    disk: &Arc<Disk>,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let limit = input
        .max_keys
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(PAGE)
        .min(PAGE);
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().filter(|d| !d.is_empty());
    let after = match &input.continuation_token {
        Some(token) => Some(read_token(token)?),
        None => input.start_after.clone(),
    };
    let disk = Arc::clone(disk);
    let page = blocking(move || {
        let keys = disk.keys(&prefix)?;
        let page = page(&keys, &prefix, delimiter.as_deref(), after.as_deref(), limit);
        let mut objects = Vec::new();
        for key in page.keys {
            objects.extend(listed(&disk, &key)?);
        }
        Ok((objects, page.prefixes, page.next))
    })
    .await?;
    let (contents, prefixes, next) = page;
    let prefixes: Vec<_> = prefixes
        .into_iter()
        .map(|prefix| CommonPrefix { prefix: Some(prefix) })
        .collect();
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(next.is_some()),
        next_continuation_token: next.map(hex::encode),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        prefix: input.prefix,
        delimiter: input.delimiter,
        continuation_token: input.continuation_token,
        start_after: input.start_after,
        ..ListObjectsV2Output::default()
    }))
}

fn listed(disk: &Disk, key: &str) -> io::Result<Option<Object>> {
    let Ok(name) = ObjectName::parse(key) else {
        return Ok(None);
    };
    let found = disk.find(&name, None)?;
    Ok(found.map(|(_, _, record)| Object {
        key: Some(key.to_owned()),
        size: Some(record.size_bytes.cast_signed()),
        e_tag: Some(ETag::Strong(record.etag)),
        last_modified: Some(wire_time(record.stored_at)),
        ..Object::default()
    }))
}

fn read_token(token: &str) -> S3Result<String> {
    hex::decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| S3Error::with_message(S3ErrorCode::InvalidArgument, "not a continuation token of ours"))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    keys: Vec<String>,
    prefixes: BTreeSet<String>,
    /// The last key that was looked at, where there are more.
    next: Option<String>,
}

/// One page of sorted keys.
fn page(keys: &[String], prefix: &str, delimiter: Option<&str>, after: Option<&str>, limit: usize) -> Page {
    let mut page = Page::default();
    let mut last = None;
    for key in keys.iter().filter(|key| after.is_none_or(|after| key.as_str() > after)) {
        let group = delimiter.and_then(|delimiter| {
            let end = key[prefix.len()..].find(delimiter)?;
            Some(&key[..prefix.len() + end + delimiter.len()])
        });
        // What an earlier page showed as a prefix is not shown again.
        if group.is_some_and(|group| after.is_some_and(|after| after.starts_with(group))) {
            continue;
        }
        let is_known = group.is_some_and(|group| page.prefixes.contains(group));
        if !is_known && page.keys.len() + page.prefixes.len() == limit {
            page.next = last;
            return page;
        }
        match group {
            Some(group) => {
                page.prefixes.insert(group.to_owned());
            }
            None => page.keys.push(key.clone()),
        }
        last = Some(key.clone());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole_list_with_each_prefix_once() {
        let keys: Vec<String> = ["p/a", "p/b/1", "p/b/2", "p/c", "p/d/1"].map(str::to_owned).to_vec();
        for limit in 1..6 {
            let (mut found, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = page(&keys, "p/", Some("/"), after.as_deref(), limit);
                found.extend(page.keys);
                found.extend(page.prefixes);
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            found.sort_unstable();
            assert_eq!(found, ["p/a", "p/b/", "p/c", "p/d/"], "limit {limit}");
        }
    }
}
