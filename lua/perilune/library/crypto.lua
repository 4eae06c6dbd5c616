---@meta

-- Types of perilune.crypto: see perilune.lua.

---@alias perilune.digest_name "md5"|"sha1"|"sha224"|"sha256"|"sha384"|"sha512"

--- Digests, seals, signatures and random bytes, by OpenSSL. Results are bytes: perilune.encoding makes them text.
---@class perilune.crypto
local crypto = {}

--- The digest of data. MD5 and SHA-1 are there for protocols that have them, and prove nothing any more.
---@param name perilune.digest_name
---@param data string
---@return string digest
function crypto.digest(name, data) end

--- The keyed digest of data, HMAC.
---@param name perilune.digest_name
---@param key string
---@param data string
---@return string digest
function crypto.hmac(name, key, data) end

--- Compares secrets, and digests that are made with them: how long it takes does not tell where they differ.
---@param a string
---@param b string
---@return boolean
function crypto.equal(a, b) end

--- Random bytes that nobody can foresee.
---@param n integer up to 1048576
---@return string bytes
function crypto.random(n) end

--- A random identifier (version 4), or one that begins with the time (version 7), so that later ones sort behind.
---@param version? integer 4 (the default) or 7
---@return string uuid "6b39eff6-ebd3-4b77-b6e9-6bf00a9f056f"
function crypto.uuid(version) end

--- Encrypts data with AES-GCM, and seals it: whoever has the key can read it, and sees whether it was changed. The seal
--- is the last 16 bytes.
---@param key string of 16, 24 or 32 bytes
---@param nonce string of 12 bytes, and never twice with one key: `crypto.random(12)`, or a counter
---@param data string
---@param aside? string is sealed with it, and not part of the result: an address, a header
---@return string sealed
function crypto.seal(key, nonce, data, aside) end

--- Opens what crypto.seal() has sealed.
---@param key string
---@param nonce string
---@param sealed string
---@param aside? string
---@return string? data nil: the seal is broken
---@return string? message
function crypto.open(key, nonce, sealed, aside) end

--- Is it the signature of the data by the owner of this key? Keys are of Ed25519 or an elliptic curve; signatures of
--- the latter (ECDSA) are in DER, as OpenSSL makes them.
---@param key string a public key in PEM
---@param data string at most 16 MiB with Ed25519
---@param signature string
---@param digest? perilune.digest_name of elliptic curves only; default: "sha256", "sha384" or "sha512", by the size
---@return boolean? is_right nil: the key cannot be read
---@return string? message
function crypto.verify(key, data, signature, digest) end

--- Signs data.
---@param key string a private key in PEM, without a password
---@param data string
---@param digest? perilune.digest_name
---@return string? signature nil: the key cannot be read
---@return string? message
function crypto.sign(key, data, digest) end
