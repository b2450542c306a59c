//! The operations that the server knows. Everything else is answered `NotImplemented` by the protocol layer.

use std::sync::Arc;

use s3s::{
    S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, BucketLocationConstraint,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateBucketInput, CreateBucketOutput,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput,
        DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetBucketLocationInput, GetBucketLocationOutput,
        GetObjectInput, GetObjectOutput, GetObjectTaggingInput, GetObjectTaggingOutput, HeadBucketInput,
        HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
        ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
        ListPartsOutput, PutObjectInput, PutObjectOutput, PutObjectTaggingInput, PutObjectTaggingOutput,
        UploadPartInput, UploadPartOutput,
    },
};

use super::{
    bodies::{Bodies, Terms, Turn},
    disk::{self, Disk},
    gate::Signed,
    limits::StoreLimits,
    listing, objects,
    receive::blocking,
    records::ObjectRecord,
    tags,
    terms::body_length,
    uploads,
    visit::Visit,
};

/// The server's one bucket.
#[derive(Debug)]
pub(super) struct BucketService {
    bucket: String,
    region: String,
    disk: Arc<Disk>,
    max_body_bytes: u64,
    full_object_checksums: bool,
    bodies: Bodies,
}

impl BucketService {
    pub(super) fn new(
        bucket: String,
        region: String,
        disk: Arc<Disk>,
        max_body_bytes: u64,
        full_object_checksums: bool,
        limits: StoreLimits,
    ) -> Self {
        Self {
            bucket,
            region,
            disk,
            max_body_bytes,
            full_object_checksums,
            bodies: Bodies::new(limits),
        }
    }

    fn ours(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.bucket {
            Ok(())
        } else {
            Err(S3ErrorCode::NoSuchBucket.into())
        }
    }

    /// A body's turn, its length, and what it must keep to.
    async fn body_turn(
        &self,
        extensions: &http::Extensions,
        upload: Option<&str>,
        content_length: Option<i64>,
    ) -> S3Result<(Turn<'_>, u64, Terms)> {
        let visit = Visit::of(extensions)?;
        let most = match visit.signed() {
            Signed::ByUrl(url) => url.most_bytes.unwrap_or(u64::MAX).min(self.max_body_bytes),
            Signed::ByAccount | Signed::ByNobody => self.max_body_bytes,
        };
        let length = body_length(content_length, most)?;
        let disk = Arc::clone(&self.disk);
        let free_bytes = blocking(move || disk.free_bytes()).await?;
        let turn = self.bodies.turn(visit, upload, length, free_bytes).await?;
        Ok((turn, length, self.bodies.terms(visit)))
    }

    async fn replace_tags(&self, key: &str, version: Option<String>, tags: Vec<(String, String)>) -> S3Result<String> {
        let found = objects::find(&self.disk, key, version).await?;
        let held = Arc::clone(&self.disk);
        let version = found.version;
        blocking(move || {
            let _lock = held.commit_lock();
            disk::rewrite(&found.folder, &ObjectRecord { tags, ..found.record })
        })
        .await?;
        Ok(version)
    }
}

#[async_trait::async_trait]
impl S3 for BucketService {
    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let bucket = Bucket {
            name: Some(self.bucket.clone()),
            ..Bucket::default()
        };
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(vec![bucket]),
            ..ListBucketsOutput::default()
        }))
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        if request.input.bucket == self.bucket {
            return Err(S3ErrorCode::BucketAlreadyOwnedByYou.into());
        }
        Err(S3Error::with_message(
            S3ErrorCode::AccessDenied,
            "this server has one bucket, named in its settings",
        ))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.ours(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: Some(self.region.clone()),
            ..HeadBucketOutput::default()
        }))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.ours(&request.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint: Some(BucketLocationConstraint::from(self.region.clone())),
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.ours(&request.input.bucket)?;
        let (_turn, length, terms) = self
            .body_turn(&request.extensions, None, request.input.content_length)
            .await?;
        objects::put(&self.disk, length, &terms, request).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.ours(&request.input.bucket)?;
        objects::get(&self.disk, request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.ours(&request.input.bucket)?;
        objects::head(&self.disk, request).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.ours(&request.input.bucket)?;
        objects::delete(&self.disk, request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.ours(&request.input.bucket)?;
        listing::list(&self.disk, request).await
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let input = request.input;
        self.ours(&input.bucket)?;
        let found = objects::find(&self.disk, &input.key, input.version_id).await?;
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set: tags::to_document(found.record.tags),
            version_id: Some(found.version),
        }))
    }

    async fn put_object_tagging(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let input = request.input;
        self.ours(&input.bucket)?;
        let tags = tags::from_document(input.tagging)?;
        let version = self.replace_tags(&input.key, input.version_id, tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput {
            version_id: Some(version),
        }))
    }

    async fn delete_object_tagging(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let input = request.input;
        self.ours(&input.bucket)?;
        let version = self.replace_tags(&input.key, input.version_id, Vec::new()).await?;
        Ok(S3Response::new(DeleteObjectTaggingOutput {
            version_id: Some(version),
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.ours(&request.input.bucket)?;
        uploads::create(&self.disk, self.full_object_checksums, request).await
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.ours(&request.input.bucket)?;
        let upload = Some(request.input.upload_id.as_str());
        let (_turn, length, terms) = self
            .body_turn(&request.extensions, upload, request.input.content_length)
            .await?;
        uploads::upload_part(&self.disk, length, &terms, request).await
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.ours(&request.input.bucket)?;
        uploads::list_parts(&self.disk, request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.ours(&request.input.bucket)?;
        uploads::complete(&self.disk, self.full_object_checksums, request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.ours(&request.input.bucket)?;
        uploads::abort(&self.disk, request).await
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.ours(&request.input.bucket)?;
        uploads::list(&self.disk, request).await
    }
}
