"""Errors of object stores: temporary ones are retried; those that a user can fix are one line, at once."""

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from lgd.pipeline.console.errors import StoreError

ATTEMPTS = 5
FIRST_WAIT_S = 1.0  # maximum before the second attempt; doubled before each further one: 15 s in total

MISSING_BUCKET = "the bucket does not exist: create it, or correct its name"
# A pattern in pyarrow's message -> what to do. S3 answers a HEAD request with a status and no reason.
ADVICE = {
    r"NO_SUCH_BUCKET|Bucket '.*' not found": MISSING_BUCKET,
    r"HTTP status 301|AuthorizationHeaderMalformed|PermanentRedirect": (
        "the bucket is in another region: add ?region=... to the address, or set AWS_REGION"
    ),
    r"INVALID_ACCESS_KEY_ID|SIGNATURE|CLIENT_TOKEN|UNRECOGNIZED_CLIENT|(Expired|Invalid)Token|EXPIRED|TOO_SKEWED": (
        "the store rejects the credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or "
        "AWS_PROFILE, and the clock"
    ),
    r"ACCESS_DENIED|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED": (
        "access denied: check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and "
        "their permissions"
    ),
    r"HTTP status 4(?!08|29)\d\d|INVALID_|MISSING_|VALIDATION": (
        "the store rejects the request: check the address, the region and the credentials"
    ),
}

Result = TypeVar("Result")


def with_retries(where: str, do: Callable[[], Result]) -> Result:
    """Return the result of `do`, which is called up to ATTEMPTS times while the store fails. where: for the message.

    Raises StoreError, one line, if the store is unreachable or rejects the request. Errors with an error number
    (FileNotFoundError, a full local disk) are no errors of the store and are raised unchanged."""
    for attempt in range(ATTEMPTS):
        if attempt:  # a random time, so that a thousand tasks do not repeat their requests at the same moment
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
        try:
            return do()
        except OSError as error:
            if error.errno is not None:
                raise
            last_error = error
            text = str(error).rpartition("AWS Error")[2]  # before it are names of buckets and files
            for pattern, advice in ADVICE.items():
                if re.search(pattern, text):
                    raise StoreError(f"{where}: {advice} ({reason(error)})") from error
    raise StoreError(
        f"{where}: storage is unreachable ({reason(last_error)}); progress is saved; rerun the same command later"
    ) from last_error


def reason(error: OSError) -> str:
    """Return the last part of pyarrow's long message: the reason from the store or the network."""
    text = str(error)
    found = text.rpartition(" operation: ")[2].rpartition("Details: ")[2]
    if found.startswith("No response body") and (status := re.search(r"HTTP status \d+|ACCESS_DENIED", text)):
        region = re.search(r"located in '(.+)'", found)
        return f"it is in {region[1]}" if region else status[0]
    # Text around the reason in messages of Google's client, and before it in those of AWS's client.
    found = re.sub(r".*last message of (PerformWork\(\) - )?| error_info=.*|Unable to parse ExceptionName: ", "", found)
    return found.replace("\n", " ").strip(" .")[:120]
