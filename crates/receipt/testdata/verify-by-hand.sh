#!/bin/sh
# Checks a receipt with tools that are not Swarm's: OpenSSL for every signature and certificate, a few lines of Python's
# standard library for hashes and the tree. Usage: verify-by-hand.sh RECEIPT DEPLOYMENT sha256:PIN
set -eu
receipt=$1 deployment=$2 pin=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# 1. Take the files apart. Nothing is believed yet.
python3 - "$receipt" "$deployment" "$work" <<'PY'
import base64, hashlib, json, sys
receipt, deployment, work = json.load(open(sys.argv[1])), json.load(open(sys.argv[2])), sys.argv[3]
def b64(text): return base64.b64decode(text, validate=True)
def put(name, data): open(f"{work}/{name}", "wb").write(data)
ED25519 = bytes.fromhex("302a300506032b6570032100")            # SubjectPublicKeyInfo before the 32 bytes of key (RFC 8410)
# The deployment's file: what the root signed is the body as canonical JSON.
body = deployment["body"]
put("deployment.signed", json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
put("deployment.sig", b64(deployment["signature"]))
put("root.der", b64(body["root_certificate"]))
# The two envelopes (DSSE): what is signed is "DSSEv1", and type and payload behind their lengths.
for name in ("node", "control"):
    envelope = receipt[name]
    kind, payload = envelope["payloadType"].encode(), b64(envelope["payload"])
    put(f"{name}.payload", payload)
    put(f"{name}.signed", b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    put(f"{name}.sig", b64(envelope["signatures"][0]["sig"]))
record = json.loads(open(f"{work}/control.payload", "rb").read())["predicate"]
for who in ("node", "control"):
    for number, certificate in enumerate(record[f"{who}_certificates"]):
        put(f"{who}-certificate-{number}.der", b64(certificate))
# The checkpoint: text, empty line, signature lines. Four bytes of key id precede each signature.
text, _, lines = b64(record["log"]["checkpoint"]).rpartition(b"\n\n")
put("checkpoint.text", text + b"\n")
put("checkpoint.sig", b64(lines.split(b"\n")[0].split(b" ")[2])[4:])
put("log.pub.der", ED25519 + b64(body["log_keys"][0].split("+", 2)[2])[1:])
# The record key of the node and the signers of the roots, as the log bound them.
for entry in record["log"]["entries"]:
    event = json.loads(b64(entry["body"]))["unmapped"]["swarm"]["event"]
    if event["kind"] == "node_enrolled":
        put("node.pub.der", ED25519 + b64(event["record_key"]))
    if event["kind"] == "writer_registered":
        put(f"signer-{event['volume']}-{event['writer_epoch']}.pub.der", ED25519 + b64(event["signer"]))
PY

# 2. Root: it is the one that was pinned, and it signed the deployment's file.
test "sha256:$(openssl dgst -sha256 -r "$work/root.der" | cut -d ' ' -f 1)" = "$pin"
openssl x509 -inform DER -in "$work/root.der" -out "$work/root.pem"
openssl x509 -in "$work/root.pem" -noout -pubkey > "$work/root.pub"
openssl dgst -sha256 -verify "$work/root.pub" -signature "$work/deployment.sig" "$work/deployment.signed" > "$work/said"
echo "ok: the root is the pinned one and signed the deployment's file"

# 3. Log: its key, named by that file, signed the checkpoint.
ed25519() { # KEY.der MESSAGE SIGNATURE
    openssl pkeyutl -verify -pubin -keyform DER -inkey "$1" -rawin -in "$2" -sigfile "$3" > "$work/said"
}
ed25519 "$work/log.pub.der" "$work/checkpoint.text" "$work/checkpoint.sig"
echo "ok: the log signed the checkpoint"

# 4. Entries: each is in the tree of the checkpoint (RFC 9162, 2.1.3.2). Then what they say is compared with the rest.
python3 - "$work" "$deployment" <<'PY'
import base64, hashlib, json, sys
work, deployment = sys.argv[1], json.load(open(sys.argv[2]))["body"]
def b64(text): return base64.b64decode(text, validate=True)
def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
payload = open(f"{work}/node.payload", "rb").read()
statement, record = json.loads(payload)["predicate"], json.loads(open(f"{work}/control.payload", "rb").read())["predicate"]
origin, size, root = open(f"{work}/checkpoint.text").read().splitlines()
assert origin == deployment["log_keys"][0].split("+")[0], "another log"
size, root, events = int(size), b64(root), []
for entry in record["log"]["entries"]:
    leaf = b"\x01" + sha(b64(entry["salt"]), b64(entry["body"]))
    node, last, running = entry["index"], size - 1, sha(b"\0", leaf)
    assert 0 <= node < size
    for sibling in map(b64, entry["proof"]):
        assert last > 0
        if node & 1 or node == last:
            running = sha(b"\1", sibling, running)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            running = sha(b"\1", running, sibling)
        node, last = node >> 1, last >> 1
    assert last == 0 and running == root, f"entry {entry['index']} is not in the log"
    body = json.loads(b64(entry["body"]))
    assert body["status_id"] == 1
    events.append((body["time"], body["unmapped"]["swarm"]["event"]))
def find(kind, **fields):
    for time, event in events:
        if event["kind"] == kind and all(event.get(name) == value for name, value in fields.items()):
            return time, event
    raise AssertionError(f"no entry {kind} {fields}")
attempt, digest = record["attempt"], "sha256:" + hashlib.sha256(payload).hexdigest()
assert record["deployment"] == deployment["deployment"] == statement["deployment"] and record["profile"] == deployment["profile"]
assert statement["attempt"] == attempt and record["statement"] == digest
ended, finished = find("job_finished", attempt=attempt, node=statement["node"], statement=digest)
assert (finished["reason"], finished["code"]) == (statement["exit"]["reason"], statement["exit"]["code"])
placed, _ = find("job_placed", attempt=attempt, node=statement["node"], region=statement["region"],
                 jurisdiction=statement["jurisdiction"], run_lease=statement["run_lease"])
_, submitted = find("job_submitted", job=attempt["job"], image=statement["image"], project=statement["project"])
command = json.dumps(statement["command"], separators=(",", ":"), ensure_ascii=False).encode()
assert submitted["command"] == "sha256:" + hashlib.sha256(command).hexdigest()
for used in statement["inputs"] + statement["outputs"]:
    head, signed = used["head"], b64(used["record"])
    length = int.from_bytes(signed[1:3], "big")
    assert head["root"] == "sha256:" + hashlib.sha256(signed[3:3 + length]).hexdigest()
    find("key_released", lease=used["lease"], volume=used["volume"], holder={"attempt": attempt}, node=statement["node"])
    find("volume_committed", volume=used["volume"], lineage=head["lineage"], seq=head["seq"], root=head["root"])
    open(f"{work}/root-{used['volume']}-{head['writer_epoch']}.signed", "wb").write(signed[3:3 + length])
    open(f"{work}/root-{used['volume']}-{head['writer_epoch']}.sig", "wb").write(signed[-64:])
leaf = hashlib.sha256(open(f"{work}/node-certificate-0.der", "rb").read()).hexdigest()
find("node_enrolled", node=statement["node"], certificate="sha256:" + leaf)
open(f"{work}/times", "w").write(f"ended={ended // 1000} placed={placed // 1000} node={statement['node']}\n")
PY
echo "ok: every entry is in the log, and statement, record and log agree"

# 5. Certificates: of the receipt key when the job ended, of the node when the attempt was placed.
. "$work/times"
for who in node control; do
    for number in 0 1; do
        openssl x509 -inform DER -in "$work/$who-certificate-$number.der" -out "$work/$who-certificate-$number.pem"
    done
done
openssl verify -x509_strict -attime "$ended" -CAfile "$work/root.pem" -untrusted "$work/control-certificate-1.pem" \
    "$work/control-certificate-0.pem" > "$work/said"
openssl verify -x509_strict -attime "$placed" -CAfile "$work/root.pem" -untrusted "$work/node-certificate-1.pem" \
    "$work/node-certificate-0.pem" > "$work/said"
openssl x509 -in "$work/node-certificate-0.pem" -noout -ext subjectAltName | grep -q "/node/$node"
echo "ok: both certificates were valid under the root at that time"

# 6. The two signatures of the receipt, and those of the roots.
openssl x509 -in "$work/control-certificate-0.pem" -noout -pubkey | openssl pkey -pubin -outform DER -out "$work/control.pub.der"
ed25519 "$work/control.pub.der" "$work/control.signed" "$work/control.sig"
echo "ok: the control plane signed the record"
ed25519 "$work/node.pub.der" "$work/node.signed" "$work/node.sig"
echo "ok: the node signed the statement"
for signed in "$work"/root-*.signed; do
    name=$(basename "$signed" .signed)
    ed25519 "$work/signer-${name#root-}.pub.der" "$signed" "$work/$name.sig"
    echo "ok: the registered signer signed $name"
done
