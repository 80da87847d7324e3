#!/usr/bin/env python3
"""Makes shamir.json and seal.json with other people's implementations: pyshamir, cryptography, cbor2 (all from PyPI)."""
import base64, hashlib, json, sys
from unittest import mock

import cbor2
import pyshamir
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def stream(seed):
    counter = 0
    while True:
        yield from hashlib.sha256(f"{seed}/{counter}".encode()).digest()
        counter += 1


def split(secret, threshold, count, seed):
    source = stream(seed)
    draw = lambda n: bytes(next(source) for _ in range(n))
    # The shares' places are counted instead of shuffled, so that the file comes out the same each time.
    with mock.patch("secrets.token_bytes", draw), mock.patch("pyshamir.shamir.generate_x_coordinates", lambda n: list(range(n))):
        parts = pyshamir.split(bytearray(secret), count, threshold)
    return [(part[-1], bytes(part[:-1])) for part in parts]


def shamir():
    vectors = []
    for threshold, count in [(2, 2), (2, 3), (3, 5), (5, 5), (7, 20)]:
        secret = bytes(hashlib.sha256(f"secret {threshold} of {count}".encode()).digest())
        shares = split(secret, threshold, count, f"{threshold} of {count}")
        assert bytes(pyshamir.combine([bytearray(y + bytes([x])) for x, y in shares[-threshold:]])) == secret
        vectors.append({"threshold": threshold, "secret": secret.hex(), "shares": [{"x": x, "y": y.hex()} for x, y in shares]})
    return {"source": "pyshamir 1.1.0", "vectors": vectors}


def seal():
    deployment, seal_id, generation, threshold, count = bytes(range(0xD0, 0xE0)), bytes(range(0x50, 0x60)), 2, 2, 3
    created, epoch = 1767225600000, 1
    secret, root, salt = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x60)), bytes(range(0x20, 0x40))
    texts, checks = [], []
    for place, value in split(secret, threshold, count, "seal"):
        body = bytes([1]) + deployment + seal_id + generation.to_bytes(4, "big") + bytes([threshold, count, place]) + value
        share = body + hashlib.sha256(b"swarm/share/v1" + body).digest()[:8]
        letters = base64.b32encode(share).decode().lower()
        assert "=" not in letters
        texts.append("swmshare-" + "-".join(letters[at:at + 8] for at in range(0, len(letters), 8)))
        checks.append(hashlib.sha256(b"swarm/share-check/v1" + body).hexdigest())
    context = cbor2.dumps(["swarm/wrapped-key/v1", bytes(16), "root-epoch", bytes(16), epoch, seal_id, generation,
                           "deployment/development", deployment, created], canonical=True)
    okm = HKDF(SHA256(), 64, salt, b"swarm/seal/v1" + hashlib.sha256(context).digest()).derive(secret)
    sealed = AESGCM(okm[:32]).encrypt(bytes(12), root, context)
    wrapped = bytes([1, 1]) + seal_id + generation.to_bytes(4, "big") + salt + okm[32:] + sealed
    assert len(wrapped) == 134
    uuid = lambda raw: f"{raw.hex()[:8]}-{raw.hex()[8:12]}-{raw.hex()[12:16]}-{raw.hex()[16:20]}-{raw.hex()[20:]}"
    file = {"format": 2, "kind": "shares", "deployment": uuid(deployment), "profile": "development", "seal": seal_id.hex(),
            "generation": generation, "threshold": threshold, "shares": checks,
            "epochs": [{"epoch": epoch, "created": created, "wrapped": wrapped.hex()}]}
    return {"source": "pyshamir 1.1.0, cryptography 50.0.2, cbor2 6.3.0", "root": root.hex(), "shares": texts, "file": file}


for name, made in (("shamir.json", shamir()), ("seal.json", seal())):
    with open(name, "w") as out:
        json.dump(made, out, indent=1)
        out.write("\n")
