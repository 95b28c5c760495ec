// Outside judge written in JavaScript: @sigstore/verify.
//
// Usage: node judge.mjs sigstore. One claim a line of JSON on standard input (byte fields in base64), one verdict a
// line on standard output: "ok", "refused: why" or "unsupported". All code that judges is theirs.
import { createPublicKey } from "node:crypto";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { verifyMerkleInclusion } = require("@sigstore/verify/dist/tlog/merkle.js");
const { verifyCheckpoint } = require("@sigstore/verify/dist/tlog/checkpoint.js");

const bytes = (text) => Buffer.from(text, "base64");

// A log as sigstore describes one: the key id it signs under, its name, its key.
function logOf(vkey) {
  const [name, keyId, material] = [vkey.split("+")[0], vkey.split("+")[1], bytes(vkey.split("+").slice(2).join("+"))];
  const publicKey = createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: material.subarray(1).toString("base64url") },
    format: "jwk",
  });
  return { logID: Buffer.from(keyId, "hex"), baseURL: name, publicKey };
}

function openCheckpoint(envelope, vkey) {
  return verifyCheckpoint({ inclusionProof: { checkpoint: { envelope } } }, [logOf(vkey)]);
}

function judge(claim) {
  switch (claim.kind) {
    case "inclusion":
      verifyMerkleInclusion(
        {
          canonicalizedBody: bytes(claim.leaf),
          inclusionProof: { logIndex: String(claim.index), hashes: claim.proof.map(bytes) },
        },
        { logSize: BigInt(claim.tree_size), logHash: bytes(claim.root) },
      );
      return "ok";
    case "checkpoint":
      openCheckpoint(bytes(claim.note).toString("utf8"), claim.vkey);
      return "ok";
    default:
      return "unsupported";
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let verdict;
  try {
    verdict = judge(JSON.parse(line));
  } catch (error) {
    verdict = `refused: ${error.message}`.replaceAll("\n", " ");
  }
  console.log(verdict);
}
