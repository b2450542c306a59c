"""The S3 protocol of `diagbot store`, as boto3 speaks it and as somebody hostile would.

Usage: contract.py URL FOLDER. Prints one line a check; exits 1 if a check fails.
"""

import base64
import hashlib
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

URL, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
BUCKET = "evidence"
PART = 5 * 1024 * 1024
CHECKS = []


def client(access="CONTRACT", secret="contract-secret-key", region="us-east-1", **settings):
    config = Config(
        signature_version=settings.pop("signature", "s3v4"),
        s3={"addressing_style": "path"},
        retries={"max_attempts": 1},
        **settings,
    )
    return boto3.client(
        "s3",
        endpoint_url=URL,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name=region,
        config=config,
    )


S3 = client()


def check(name):
    def register(function):
        CHECKS.append((name, function))
        return function

    return register


def code_of(call, *args, **kwargs):
    """The store's error code; `accepted` where there was none."""
    try:
        call(*args, **kwargs)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "accepted"


def curl(*args, data=None):
    """Status and body of a request made by curl."""
    command = ["curl", "--silent", "--show-error", "--max-time", "30", "--path-as-is", "--write-out", "\n%{http_code}"]
    done = subprocess.run([*command, *args], input=data, capture_output=True, check=False)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status or 0), body


def sign(method, key, expires=60, s3=None, **more):
    return (s3 or S3).generate_presigned_url(method, Params={"Bucket": BUCKET, "Key": key, **more}, ExpiresIn=expires)


def equal(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def contents(key):
    return S3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


# What boto3 does.


@check("an object comes back with its bytes, type, metadata, length and MD5 as ETag")
def _():
    S3.put_object(Bucket=BUCKET, Key="a/b.txt", Body=b"hello", ContentType="text/plain", Metadata={"who": "me"})
    answer = S3.get_object(Bucket=BUCKET, Key="a/b.txt")
    equal(answer["Body"].read(), b"hello")
    equal((answer["ContentType"], answer["Metadata"], answer["ContentLength"]), ("text/plain", {"who": "me"}, 5))
    equal(answer["ETag"], '"%s"' % hashlib.md5(b"hello").hexdigest())


@check("ranges: first, open, suffix, beyond the end")
def _():
    S3.put_object(Bucket=BUCKET, Key="range", Body=b"0123456789")
    read = lambda r: S3.get_object(Bucket=BUCKET, Key="range", Range=r)["Body"].read()
    equal((read("bytes=0-2"), read("bytes=7-"), read("bytes=-2")), (b"012", b"789", b"89"))
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="range", Range="bytes=10-"), "InvalidRange")


@check("an empty object")
def _():
    S3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    equal(contents("empty"), b"")


@check("odd but honest names")
def _():
    for key in ["spa ce", "plus+and%41", "ünïcode/日本", "a,v", "dots..in", "quote'\"<>&", "tilde~()!*"]:
        S3.put_object(Bucket=BUCKET, Key=f"odd/{key}", Body=key.encode())
        equal(contents(f"odd/{key}"), key.encode())


@check("a missing object, version and bucket have their own codes")
def _():
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="missing"), "NoSuchKey")
    equal(code_of(S3.head_object, Bucket=BUCKET, Key="missing"), "404")
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="a/b.txt", VersionId="0" * 24), "NoSuchVersion")
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="a/b.txt", VersionId="../../keys"), "NoSuchVersion")
    equal(code_of(S3.get_object, Bucket="elsewhere", Key="a"), "NoSuchBucket")


@check("conditions: If-None-Match:* on writing, If-Match and If-None-Match on reading")
def _():
    equal(code_of(S3.put_object, Bucket=BUCKET, Key="once", Body=b"1", IfNoneMatch="*"), "accepted")
    equal(code_of(S3.put_object, Bucket=BUCKET, Key="once", Body=b"2", IfNoneMatch="*"), "PreconditionFailed")
    equal(contents("once"), b"1")
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="once", IfMatch='"0"'), "PreconditionFailed")
    equal(code_of(S3.head_object, Bucket=BUCKET, Key="once", IfNoneMatch="*"), "304")


@check("every write is a version, and an old one stays what it was")
def _():
    first = S3.put_object(Bucket=BUCKET, Key="versions", Body=b"first")["VersionId"]
    second = S3.put_object(Bucket=BUCKET, Key="versions", Body=b"second")["VersionId"]
    assert first != second
    equal(contents("versions"), b"second")
    equal(S3.get_object(Bucket=BUCKET, Key="versions", VersionId=first)["Body"].read(), b"first")
    S3.delete_object(Bucket=BUCKET, Key="versions", VersionId=second)
    equal(contents("versions"), b"first")
    S3.delete_object(Bucket=BUCKET, Key="versions")
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="versions", VersionId=first), "NoSuchVersion")


@check("a list is sorted, paged, and groups by a delimiter")
def _():
    for n in range(25):
        S3.put_object(Bucket=BUCKET, Key=f"list/{n % 3}/{n:02}", Body=b"x")
    S3.put_object(Bucket=BUCKET, Key="list/1-", Body=b"x")
    pages = S3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 7}
    )
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    equal((len(keys), keys), (26, sorted(keys)))
    grouped = S3.list_objects_v2(Bucket=BUCKET, Prefix="list/", Delimiter="/")
    equal([p["Prefix"] for p in grouped["CommonPrefixes"]], ["list/0/", "list/1/", "list/2/"])
    equal([c["Key"] for c in grouped["Contents"]], ["list/1-"])


@check("tags: by header, replaced, removed, and their limits")
def _():
    S3.put_object(Bucket=BUCKET, Key="tags", Body=b"x", Tagging="run=d-1&who=a%20b")
    tags = lambda: {t["Key"]: t["Value"] for t in S3.get_object_tagging(Bucket=BUCKET, Key="tags")["TagSet"]}
    equal(tags(), {"run": "d-1", "who": "a b"})
    S3.put_object_tagging(Bucket=BUCKET, Key="tags", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    equal(tags(), {"k": "v"})
    many = "&".join(f"k{n}=v" for n in range(11))
    equal(code_of(S3.put_object, Bucket=BUCKET, Key="tags", Body=b"x", Tagging=many), "InvalidTag")
    S3.delete_object_tagging(Bucket=BUCKET, Key="tags")
    equal(tags(), {})


@check("upload_file and download_file of 23 MiB in parts")
def _():
    source, target = FOLDER / "source", FOLDER / "target"
    source.write_bytes(os.urandom(23 * 1024 * 1024))
    settings = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
    S3.upload_file(str(source), BUCKET, "transfer", Config=settings, ExtraArgs={"Tagging": "a=b"})
    S3.download_file(BUCKET, "transfer", str(target), Config=settings)
    equal(hashlib.sha256(target.read_bytes()).digest(), hashlib.sha256(source.read_bytes()).digest())
    head = S3.head_object(Bucket=BUCKET, Key="transfer", ChecksumMode="ENABLED")
    equal((head["ETag"][-3:], len(base64.b64decode(head["ChecksumCRC64NVME"]))), ('-5"', 8))


def start(key, **more):
    return S3.create_multipart_upload(Bucket=BUCKET, Key=key, **more)["UploadId"]


def part(key, upload, number, body, **more):
    answer = S3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body, **more)
    return {"PartNumber": number, "ETag": answer["ETag"]}


def complete(key, upload, parts, **more):
    listed = {"Parts": parts}
    return S3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=listed, **more)


@check("a whole-object CRC-64/NVME is compared when an upload is completed")
def _():
    upload = start("crc", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    parts = [part("crc", upload, 1, b"1" * PART), part("crc", upload, 2, b"2")]
    wrong = base64.b64encode(b"12345678").decode()
    equal(code_of(complete, "crc", upload, parts, ChecksumCRC64NVME=wrong, ChecksumType="FULL_OBJECT"), "BadDigest")
    found = complete("crc", upload, parts)["ChecksumCRC64NVME"]
    upload = start("crc", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    parts = [part("crc", upload, 1, b"1" * PART), part("crc", upload, 2, b"2")]
    equal(complete("crc", upload, parts, ChecksumCRC64NVME=found)["ChecksumCRC64NVME"], found)


@check("wrong lists of parts: order, missing, ETag, too small, none")
def _():
    upload = start("wrong")
    one, two = part("wrong", upload, 1, b"1" * 10), part("wrong", upload, 2, b"2")
    equal(code_of(complete, "wrong", upload, [two, one]), "InvalidPartOrder")
    equal(code_of(complete, "wrong", upload, [one, {"PartNumber": 7, "ETag": one["ETag"]}]), "InvalidPart")
    equal(code_of(complete, "wrong", upload, [{"PartNumber": 1, "ETag": two["ETag"]}]), "InvalidPart")
    equal(code_of(complete, "wrong", upload, [one, two]), "EntityTooSmall")
    equal(code_of(part, "wrong", upload, 0, b"x"), "InvalidArgument")
    equal(code_of(part, "wrong", upload, 10001, b"x"), "InvalidArgument")
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="wrong"), "NoSuchKey")
    S3.abort_multipart_upload(Bucket=BUCKET, Key="wrong", UploadId=upload)


@check("open uploads and their parts are listed in pages; an aborted one is gone")
def _():
    uploads = {start(f"open/{n}") for n in range(5)}
    pages = S3.get_paginator("list_multipart_uploads").paginate(
        Bucket=BUCKET, Prefix="open/", PaginationConfig={"PageSize": 2}
    )
    listed = {(u["Key"], u["UploadId"]) for page in pages for u in page["Uploads"]}
    equal({upload for _, upload in listed}, uploads)
    key, upload = sorted(listed)[0]
    for number in (3, 1, 2):
        part(key, upload, number, b"x" * number)
    pages = S3.get_paginator("list_parts").paginate(
        Bucket=BUCKET, Key=key, UploadId=upload, PaginationConfig={"PageSize": 2}
    )
    equal([(p["PartNumber"], p["Size"]) for page in pages for p in page["Parts"]], [(1, 1), (2, 2), (3, 3)])
    for key, upload in listed:
        S3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
        equal(code_of(part, key, upload, 1, b"x"), "NoSuchUpload")
        equal(code_of(S3.abort_multipart_upload, Bucket=BUCKET, Key=key, UploadId=upload), "NoSuchUpload")


@check("an upload belongs to its key")
def _():
    upload = start("mine")
    equal(code_of(part, "other", upload, 1, b"x"), "NoSuchUpload")
    equal(code_of(part, "mine", "../../evidence", 1, b"x"), "NoSuchUpload")
    S3.abort_multipart_upload(Bucket=BUCKET, Key="mine", UploadId=upload)


@check("every checksum that boto3 knows is compared, in headers and behind the body")
def _():
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        S3.put_object(Bucket=BUCKET, Key="sum", Body=b"sum", ChecksumAlgorithm=algorithm)
        equal(contents("sum"), b"sum")
    equal(code_of(S3.put_object, Bucket=BUCKET, Key="sum", Body=b"x", ChecksumCRC32="AAAAAA=="), "BadDigest")
    equal(code_of(S3.put_object, Bucket=BUCKET, Key="sum", Body=b"x", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA=="), "BadDigest")
    equal(code_of(S3.put_object, Bucket=BUCKET, Key="sum", Body=b"x", ContentMD5="short"), "InvalidDigest")
    equal(contents("sum"), b"sum")


@check("what can't be promised is refused: encryption, object lock, access lists, copies")
def _():
    put = dict(Bucket=BUCKET, Key="promise", Body=b"x")
    for more in [
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"},
        {"ServerSideEncryption": "AES256"},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": "2030-01-01T00:00:00Z"},
        {"ACL": "public-read"},
    ]:
        equal(code_of(S3.put_object, **put, **more), "NotImplemented")
        more = {k: v for k, v in more.items()}
        equal(code_of(start, "promise", **more), "NotImplemented")
    equal(code_of(S3.copy_object, Bucket=BUCKET, Key="promise", CopySource=f"{BUCKET}/a/b.txt"), "NotImplemented")
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="promise"), "NoSuchKey")


@check("a second access key works; a wrong secret, an unknown key, another region and version 2 do not")
def _():
    equal(code_of(client("SECOND", "second-secret-key").head_bucket, Bucket=BUCKET), "accepted")
    get = dict(Bucket=BUCKET, Key="a/b.txt")
    equal(code_of(client(secret="wrong").get_object, **get), "SignatureDoesNotMatch")
    equal(code_of(client("NOBODY").get_object, **get), "InvalidAccessKeyId")
    equal(code_of(client(region="eu-west-1").get_object, **get), "AuthorizationHeaderMalformed")
    equal(code_of(client(signature="s3").get_object, **get), "AccessDenied")
    equal(code_of(S3.create_bucket, Bucket="another"), "AccessDenied")


# What somebody hostile does.


@check("a link downloads the object under the name and type it was signed with")
def _():
    more = {"ResponseContentDisposition": 'attachment; filename="x.txt"', "ResponseContentType": "text/plain"}
    status, head = curl("--include", sign("get_object", "a/b.txt", **more))
    head = head.decode().lower()
    equal(status, 200)
    assert 'content-disposition: attachment; filename="x.txt"' in head and "content-type: text/plain" in head, head
    assert head.endswith("hello") and "x-content-type-options: nosniff" in head, head


@check("a link with one changed digit, key, lifetime or parameter is refused")
def _():
    link = sign("get_object", "a/b.txt", ResponseContentType="text/plain")
    flipped = link[:-1] + ("0" if link[-1] != "0" else "1")
    changed = [
        flipped,
        link.replace("/a/b.txt", "/range"),
        link.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
        link.replace("text%2Fplain", "text%2Fhtml"),
        link + "&versionId=" + "0" * 24,
        link.replace("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        link.split("&X-Amz-Signature")[0],
        link.split("?")[0],
    ]
    for url in changed:
        assert url != link, "the change did not apply"
        status, body = curl(url)
        assert status in (400, 403) and b"hello" not in body, (status, body)


@check("a link is refused once it has expired, and longer than a week is not signed for")
def _():
    link = sign("get_object", "a/b.txt", expires=1)
    deadline = time.monotonic() + 15
    status = 200
    while status == 200 and time.monotonic() < deadline:
        status, _ = curl(link)
        time.sleep(0.1)
    equal(status, 403)
    equal(curl(sign("get_object", "a/b.txt", expires=604801))[0], 400)


@check("a link for reading neither writes nor removes, and one for writing does not read")
def _():
    link = sign("get_object", "a/b.txt")
    equal(curl("--request", "PUT", "--data-binary", "evil", link)[0], 403)
    equal(curl("--request", "DELETE", link)[0], 403)
    equal(curl(sign("put_object", "a/b.txt"))[0], 403)
    equal(contents("a/b.txt"), b"hello")


@check("an upload URL takes no x-amz header that was not signed")
def _():
    put = sign("put_object", "unsigned")
    upload = start("unsigned")
    piece = sign("upload_part", "unsigned", UploadId=upload, PartNumber=1)
    for url in (put, piece):
        for header in [
            f"x-amz-copy-source: /{BUCKET}/a/b.txt",
            "X-AMZ-Copy-Source: %2Fevidence%2Fa%2Fb.txt",
            "x-amz-tagging: a=b",
            "x-amz-meta-a: b",
            "x-amz-acl: public-read",
            "x-amz-server-side-encryption: AES256",
            "x-amz-security-token: t",
        ]:
            status, body = curl("--request", "PUT", "--header", header, "--data-binary", "evil", url)
            assert status == 403 and b"not signed" in body, (header, status, body)
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="unsigned"), "NoSuchKey")
    equal(S3.list_parts(Bucket=BUCKET, Key="unsigned", UploadId=upload).get("Parts", []), [])
    S3.abort_multipart_upload(Bucket=BUCKET, Key="unsigned", UploadId=upload)


@check("an upload URL without tricks works, with Content-MD5 and a length only")
def _():
    md5 = base64.b64encode(hashlib.md5(b"fine").digest()).decode()
    put = sign("put_object", "plain")
    args = ["--request", "PUT", "--data-binary", "fine"]
    equal(curl(*args, "--header", f"Content-MD5: {md5}", put)[0], 200)
    equal(contents("plain"), b"fine")
    bad = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    status, body = curl(*args, "--header", f"Content-MD5: {bad}", put)
    assert status == 400 and b"BadDigest" in body, (status, body)
    equal(curl("--upload-file", "-", put, data=b"of no known length")[0], 411)
    equal(contents("plain"), b"fine")


@check("a body that is cut off or too long is never visible")
def _():
    put = sign("put_object", "cut")
    address = urllib.parse.urlsplit(put)
    import socket

    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        path = put[put.index(address.path) :]
        head = f"PUT {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 700000)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(4096)
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="cut"), "NoSuchKey")
    status, body = curl("--request", "PUT", "--header", "Content-Length: 67108865", "--data-binary", "x", put)
    assert b"EntityTooLarge" in body, (status, body)


@check("a wrong x-amz-content-sha256 is refused and nothing is stored")
def _():
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    wrong = hashlib.sha256(b"other").hexdigest()
    request = AWSRequest("PUT", f"{URL}/{BUCKET}/sha", data=b"body", headers={"X-Amz-Content-SHA256": wrong})

    class Fixed(S3SigV4Auth):
        def payload(self, request):
            return wrong

        def _inject_content_sha256(self, request):
            request.headers["X-Amz-Content-SHA256"] = wrong

    Fixed(Credentials("CONTRACT", "contract-secret-key"), "s3", "us-east-1").add_auth(request)
    headers = [arg for name, value in request.headers.items() for arg in ("--header", f"{name}: {value}")]
    status, body = curl("--request", "PUT", *headers, "--data-binary", "body", f"{URL}/{BUCKET}/sha")
    assert status == 400 and b"XAmzContentSHA256Mismatch" in body, (status, body)
    equal(code_of(S3.get_object, Bucket=BUCKET, Key="sha"), "NoSuchKey")


@check("keys that lead elsewhere are refused, and no file appears outside the bucket's folder")
def _():
    before = outside()
    for key in ["../evil", "../../evil", "a/../../evil", "./evil", "a//evil", "/evil", "evil/", "a\x01b", "..", "a/.."]:
        outcome = code_of(S3.put_object, Bucket=BUCKET, Key=key, Body=b"evil")
        assert outcome != "accepted", f"{key!r} was {outcome}"
        assert code_of(start, key) != "accepted", key
    for raw in ["../evil", "%2e%2e/evil", "..%2f..%2fevil", "%2e%2e%2f%2e%2e%2fkeys.yaml", "a/%2e%2e/%2e%2e/evil"]:
        for method in ("PUT", "GET", "DELETE"):
            url = sign(f"{method.lower()}_object", "KEY").replace("/KEY?", f"/{raw}?")
            status, _ = curl("--request", method, "--data-binary", "evil", url)
            assert status in (400, 403, 404), (method, raw, status)
    equal(code_of(S3.put_object, Bucket=BUCKET, Key="x" * 1025, Body=b"x"), "KeyTooLongError")
    equal(outside(), before)


def outside():
    found = {str(p) for p in FOLDER.rglob("*") if not p.is_relative_to(FOLDER / "data" / BUCKET / "objects")}
    return {p for p in found if "/uploads/" not in p and "/incoming/" not in p}


@check("a browser form, an unsigned request and junk are refused")
def _():
    equal(curl("--form", "key=evil", "--form", "file=@/etc/hostname", f"{URL}/{BUCKET}")[0], 501)
    equal(curl(f"{URL}/{BUCKET}/a/b.txt")[0], 403)
    equal(curl("--header", "Authorization: AWS4-HMAC-SHA256 junk", f"{URL}/{BUCKET}/a/b.txt")[0], 400)
    equal(curl("--header", "Authorization: Bearer x", f"{URL}/{BUCKET}/a/b.txt")[0], 403)
    equal(curl("--request", "PROPFIND", f"{URL}/{BUCKET}/a/b.txt")[0] in (403, 405, 501), True)


@check("idle connections do not keep others out")
def _():
    import socket

    address = urllib.parse.urlsplit(URL)
    idle = [socket.create_connection((address.hostname, address.port), timeout=5) for _ in range(100)]
    equal(contents("a/b.txt"), b"hello")
    for connection in idle:
        connection.close()


@check("nothing unfinished is left in the folder")
def _():
    left = list((FOLDER / "data" / BUCKET / "incoming").iterdir())
    deadline = time.monotonic() + 10
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = list((FOLDER / "data" / BUCKET / "incoming").iterdir())
    equal(left, [])
    equal(S3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []), [])


def wait_for_store():
    deadline = time.monotonic() + 30
    while True:
        try:
            return S3.head_bucket(Bucket=BUCKET)
        except Exception as error:
            if time.monotonic() > deadline:
                sys.exit(f"the store does not answer: {error}")
            time.sleep(0.1)


def main():
    wait_for_store()
    failed = 0
    for name, run in CHECKS:
        try:
            run()
            print(f"ok      {name}")
        except Exception as error:
            failed += 1
            print(f"FAILED  {name}\n        {type(error).__name__}: {error}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
