"""Verifies DSSE envelopes with securesystemslib, which knows nothing of the signer.

usage: verify_envelope.py PUBLIC_KEY.pem KEYID ENVELOPE.json

Prints the payload's SHA-256 and exits 0 when the envelope's signature is the key's, exits 1 when it is not.
"""

import hashlib
import json
import sys

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey


def main(public_key: str, keyid: str, envelope: str) -> int:
    with open(public_key, encoding="ascii") as file:
        key = SSlibKey(keyid, "ecdsa", "ecdsa-sha2-nistp256", {"public": file.read()})
    with open(envelope, encoding="utf-8") as file:
        parsed = Envelope.from_dict(json.load(file))
    try:
        parsed.verify([key], threshold=1)
    except VerificationError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(hashlib.sha256(parsed.payload).hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
