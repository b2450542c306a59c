"""`diagbot store`, killed in the midst of uploads: what was acknowledged is there, what is there is whole.

Usage: crash.py PROGRAM CONFIG URL FOLDER. Exits 1 if an object is missing or wrong.
"""

import hashlib
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

import boto3
from botocore.client import Config

PROGRAM, CONFIG, URL, FOLDER = sys.argv[1], sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])
BUCKET, ROUNDS, WRITERS, PART = "evidence", 3, 8, 5 * 1024 * 1024


def client():
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20)
    return boto3.client(
        "s3",
        endpoint_url=URL,
        aws_access_key_id="CONTRACT",
        aws_secret_access_key="contract-secret-key",
        region_name="us-east-1",
        config=config,
    )


def start(log):
    store = subprocess.Popen([PROGRAM, "store", "--config", CONFIG], stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 30
    while True:
        try:
            client().head_bucket(Bucket=BUCKET)
            return store
        except Exception as error:
            if time.monotonic() > deadline or store.poll() is not None:
                sys.exit(f"the store does not answer: {error}")
            time.sleep(0.05)


def upload(s3, key, body):
    if len(body) <= PART:
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    parts = []
    for number, piece in enumerate((body[:PART], body[PART:]), start=1):
        answer = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def write_until_killed(name, sent, acknowledged):
    s3 = client()
    number = 0
    while True:
        key = f"crash/{name}/{number}"
        body = os.urandom(random.choice([10, 5_000, 300_000, PART + 1_000_000]))
        sent[key] = hashlib.sha256(body).hexdigest()
        try:
            upload(s3, key, body)
        except Exception:
            return
        acknowledged.add(key)
        number += 1


def main():
    sent, acknowledged = {}, set()
    with open(FOLDER / "crash.log", "w") as log:
        for turn in range(ROUNDS):
            store = start(log)
            before = len(acknowledged)
            names = [f"{turn}-{writer}" for writer in range(WRITERS)]
            writers = [threading.Thread(target=write_until_killed, args=(n, sent, acknowledged)) for n in names]
            for writer in writers:
                writer.start()
            deadline = time.monotonic() + 30
            while len(acknowledged) < before + 3 * WRITERS and time.monotonic() < deadline:
                time.sleep(0.01)
            store.kill()
            store.wait()
            for writer in writers:
                writer.join()
        store = start(log)
        try:
            check(sent, acknowledged)
        finally:
            store.terminate()
            store.wait()


def check(sent, acknowledged):
    s3 = client()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="crash/")
    listed = [item["Key"] for page in pages for item in page.get("Contents", [])]
    found = {k: hashlib.sha256(s3.get_object(Bucket=BUCKET, Key=k)["Body"].read()).hexdigest() for k in listed}
    missing = acknowledged - found.keys()
    wrong = [key for key in found if found[key] != sent[key]]
    left = list((FOLDER / "data" / BUCKET / "incoming").iterdir())
    good = not missing and not wrong and not left and len(acknowledged) > ROUNDS * WRITERS
    word = "ok     " if good else "FAILED "
    print(f"{word} killed {ROUNDS} times: {len(sent)} sent, {len(acknowledged)} acknowledged, {len(found)} whole")
    if not good:
        print(f"        missing {sorted(missing)[:5]}, wrong {wrong[:5]}, left {left[:5]}")
        sys.exit(1)


main()
