"""The faults of a remote store: those that pass are waited out; those that a user can mend are one line, at once."""

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from lgd.pipeline.console.errors import StoreError

ATTEMPTS = 5
FIRST_WAIT_S = 1.0  # before the second attempt, at most; doubled before each further one: 15 s in all

MISSING_BUCKET = "there is no such bucket: create it, or correct its name"
# What pyarrow's text says -> what to do. A HEAD request gets no reason from S3, only the status.
MENDABLE = {
    r"NO_SUCH_BUCKET|Bucket '.*' not found": MISSING_BUCKET,
    r"HTTP status 301|AuthorizationHeaderMalformed|PermanentRedirect": (
        "the bucket is in another region: add ?region=... to the address, or set AWS_REGION"
    ),
    r"INVALID_ACCESS_KEY_ID|SIGNATURE|CLIENT_TOKEN|UNRECOGNIZED_CLIENT|(Expired|Invalid)Token|EXPIRED|TOO_SKEWED": (
        "the store refuses the credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or "
        "AWS_PROFILE, and the clock"
    ),
    r"ACCESS_DENIED|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED": (
        "access denied: check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and what "
        "they allow"
    ),
    r"HTTP status 4(?!08|29)\d\d|INVALID_|MISSING_|VALIDATION": (
        "the store refuses the request: check the address, the region and the credentials"
    ),
}

Result = TypeVar("Result")


def with_retries(where: str, do: Callable[[], Result]) -> Result:
    """What `do` returns, which is tried up to ATTEMPTS times while the store falters. where: for the message.

    Raises StoreError, one line, when the store does not answer or refuses. What has an error number
    (FileNotFoundError, a full local disk) is no fault of the store and is raised as it is."""
    for attempt in range(ATTEMPTS):
        if attempt:  # at random, so that a thousand tasks do not come back in the same moment
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
        try:
            return do()
        except OSError as error:
            if error.errno is not None:
                raise
            fault = error
            text = str(error).rpartition("AWS Error")[2]  # before it: the names of things
            for pattern, advice in MENDABLE.items():
                if re.search(pattern, text):
                    raise StoreError(f"{where}: {advice} ({reason(error)})") from error
    raise StoreError(
        f"{where}: the store does not answer ({reason(fault)}): nothing is lost: run the same command again when it "
        "answers"
    ) from fault


def reason(error: OSError) -> str:
    """The last part of pyarrow's long text: what the store or the network said."""
    text = str(error)
    said = text.rpartition(" operation: ")[2].rpartition("Details: ")[2]
    if said.startswith("No response body") and (status := re.search(r"HTTP status \d+|ACCESS_DENIED", text)):
        region = re.search(r"located in '(.+)'", said)
        return f"it is in {region[1]}" if region else status[0]
    # Around what Google's client was told, and before what AWS's did not know.
    said = re.sub(r".*last message of (PerformWork\(\) - )?| error_info=.*|Unable to parse ExceptionName: ", "", said)
    return said.replace("\n", " ").strip(" .")[:120]
