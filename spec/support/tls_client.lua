--- A client that speaks TLS, for what happens while it is connected: OpenSSL's, over one of spec/support/client.lua,
--- which has the bytes in hand. What others do is tried with programs of theirs.
---
---     local alice = tls_client.open(app:connect(), { authority = pki:path "ca.pem", name = "example.org" })
---     alice:echo_line("hello")
local ffi = require "ffi"

ffi.cdef [[
  typedef struct ssl_st SSL; typedef struct ssl_ctx_st SSL_CTX; typedef struct bio_st BIO;
  typedef struct x509_st X509; typedef struct ssl_session_st SSL_SESSION;
  const void *TLS_client_method(void);
  SSL_CTX *SSL_CTX_new(const void *method); void SSL_CTX_free(SSL_CTX *);
  long SSL_CTX_ctrl(SSL_CTX *, int command, long number, void *pointer);
  int SSL_CTX_load_verify_locations(SSL_CTX *, const char *file, const char *folder);
  void SSL_CTX_set_verify(SSL_CTX *, int mode, void *callback);
  int SSL_CTX_use_certificate_chain_file(SSL_CTX *, const char *);
  int SSL_CTX_use_PrivateKey_file(SSL_CTX *, const char *, int type);
  int SSL_CTX_set_alpn_protos(SSL_CTX *, const char *, unsigned);
  int SSL_CTX_set_cipher_list(SSL_CTX *, const char *);
  SSL *SSL_new(SSL_CTX *); void SSL_free(SSL *); void SSL_set_connect_state(SSL *);
  long SSL_ctrl(SSL *, int command, long number, void *pointer);
  int SSL_set1_host(SSL *, const char *);
  const void *BIO_s_mem(void); BIO *BIO_new(const void *);
  long BIO_ctrl(BIO *, int command, long number, void *pointer);
  int BIO_read(BIO *, void *, int); int BIO_write(BIO *, const void *, int);
  void SSL_set_bio(SSL *, BIO *, BIO *);
  int SSL_do_handshake(SSL *); int SSL_get_error(const SSL *, int);
  int SSL_read(SSL *, void *, int); int SSL_write(SSL *, const void *, int); int SSL_shutdown(SSL *);
  int SSL_renegotiate(SSL *); int SSL_get_shutdown(const SSL *);
  SSL_SESSION *SSL_get1_session(SSL *); int SSL_set_session(SSL *, SSL_SESSION *); void SSL_SESSION_free(SSL_SESSION *);
  int SSL_session_reused(const SSL *); const char *SSL_get_version(const SSL *);
  long SSL_get_verify_result(const SSL *); const char *X509_verify_cert_error_string(long);
  void SSL_get0_alpn_selected(const SSL *, const char **, unsigned *);
  X509 *SSL_get1_peer_certificate(const SSL *); void X509_free(X509 *);
  void *X509_get_subject_name(const X509 *); char *X509_NAME_oneline(const void *, char *, int);
  const void *X509_get0_pubkey(const X509 *); int EVP_PKEY_get_base_id(const void *);
  const void *SSL_get_current_cipher(const SSL *); const char *SSL_CIPHER_get_name(const void *);
  unsigned long ERR_get_error(void); void ERR_clear_error(void); const char *ERR_reason_error_string(unsigned long);
]]

local M = {}

-- Where it has another name, these specifications cannot be run, and the others can.
local has_library, lib = pcall(ffi.load, "libssl.so.3")

M.is_there = has_library

local MIN_VERSION, MAX_VERSION, SERVER_NAME, STATUS_TYPE, STATUS_RESPONSE = 123, 124, 55, 65, 70
local WANT_READ, ZERO_RETURN, PEM = 2, 6, 1
local VERIFY_PEER, BIO_PENDING = 1, 10
local VERSIONS = { ["1.2"] = 0x0303, ["1.3"] = 0x0304 }
local RSA = 6
local CHUNK = 65536

---@class perilune.spec.tls_client
---@field wire perilune.client what the bytes go through
local client = {}
client.__index = client

local function last_error()
  local code = lib.ERR_get_error()
  local text = code ~= 0 and lib.ERR_reason_error_string(code) or nil
  lib.ERR_clear_error()
  return text ~= nil and ffi.string(text) or "no error"
end

local function context_of(options)
  local context = ffi.gc(lib.SSL_CTX_new(lib.TLS_client_method()), lib.SSL_CTX_free)
  lib.SSL_CTX_ctrl(context, MIN_VERSION, VERSIONS[options.version or "1.2"], nil)
  lib.SSL_CTX_ctrl(context, MAX_VERSION, VERSIONS[options.version or "1.3"], nil)
  if options.authority then
    assert(lib.SSL_CTX_load_verify_locations(context, options.authority, nil) == 1)
    lib.SSL_CTX_set_verify(context, VERIFY_PEER, nil)
  end
  if options.certificate then
    assert(lib.SSL_CTX_use_certificate_chain_file(context, options.certificate) == 1)
    assert(lib.SSL_CTX_use_PrivateKey_file(context, options.key, PEM) == 1)
  end
  if options.ciphers then assert(lib.SSL_CTX_set_cipher_list(context, options.ciphers) == 1) end
  local wire = ""
  for _, name in ipairs(options.alpn or {}) do wire = wire .. string.char(#name) .. name end
  if wire ~= "" then assert(lib.SSL_CTX_set_alpn_protos(context, wire, #wire) == 0) end
  return context
end

-- What OpenSSL has to say goes out.
local function flush(self)
  local n = tonumber(lib.BIO_ctrl(self.out, BIO_PENDING, 0, nil))
  if n == 0 then return "" end
  local bytes = ffi.new("char[?]", n)
  assert(lib.BIO_read(self.out, bytes, n) == n)
  return ffi.string(bytes, n)
end

-- Sends what has to be sent, and gives OpenSSL what comes next. nil, and how the stream has ended.
local function exchange(self)
  local out = flush(self)
  if out ~= "" then self.wire:send(out) end
  local bytes, how = self.wire:recv_some()
  if not bytes then return nil, how end
  assert(lib.BIO_write(self.input, bytes, #bytes) == #bytes)
  return true
end

-- Runs call() until it has succeeded. nil, and why not: "closed" and "reset" by the network, "closed by notice", or
-- what OpenSSL says.
local function drive(self, call)
  lib.ERR_clear_error()
  while true do
    local result = call()
    if result > 0 then
      local out = flush(self)
      if out ~= "" then self.wire:send(out) end
      return result
    end
    local code = lib.SSL_get_error(self.ssl, result)
    if code == ZERO_RETURN then return nil, "closed by notice" end
    if code ~= WANT_READ then
      local why = last_error()
      local out = flush(self)
      if out ~= "" then self.wire:send_some(out) end
      return nil, why
    end
    local ok, how = exchange(self)
    if not ok then return nil, how end
  end
end

--- What the handshake begins with, without a connection.
---@return string bytes
function M.hello(options)
  local self = M.begin(nil, options)
  assert(lib.SSL_do_handshake(self.ssl) < 0)
  lib.ERR_clear_error()
  return flush(self)
end

--- Ready for a handshake over a connection.
---@param wire perilune.client?
---@param options { version: "1.2"|"1.3"|nil, authority: string?, name: string?, certificate: string?, key: string?,
---  alpn: string[]?, ciphers: string?, session: any, status: boolean? }? `name`: of the server; `session`: of a client
---  of before; `status`: an OCSP response is asked for
---@return perilune.spec.tls_client
function M.begin(wire, options)
  options = options or {}
  local context = context_of(options)
  local ssl = ffi.gc(lib.SSL_new(context), lib.SSL_free)
  local self = setmetatable({ wire = wire, context = context, ssl = ssl }, client)
  self.input, self.out = lib.BIO_new(lib.BIO_s_mem()), lib.BIO_new(lib.BIO_s_mem())
  lib.SSL_set_bio(ssl, self.input, self.out)
  lib.SSL_set_connect_state(ssl)
  if options.name then lib.SSL_ctrl(ssl, SERVER_NAME, 0, ffi.cast("void *", options.name)) end
  if options.session then assert(lib.SSL_set_session(ssl, options.session) == 1) end
  if options.status then lib.SSL_ctrl(ssl, STATUS_TYPE, 1, nil) end
  return self
end

--- Does the handshake: true, or nil and why not.
function client:handshake() return drive(self, function() return lib.SSL_do_handshake(self.ssl) end) end

--- A connection with TLS on it; or nil, and why not.
---@return perilune.spec.tls_client?
---@return string? why
function M.try_open(wire, options)
  local self = M.begin(wire, options)
  local ok, why = self:handshake()
  if ok then return self end
  return nil, why
end

--- The same, which must succeed.
---@return perilune.spec.tls_client
function M.open(wire, options)
  local self, why = M.try_open(wire, options)
  return self or error("the handshake failed: " .. why, 2)
end

-- ---- what was settled ----

function client:version() return ffi.string(lib.SSL_get_version(self.ssl)) end
function client:cipher() return ffi.string(lib.SSL_CIPHER_get_name(lib.SSL_get_current_cipher(self.ssl))) end
function client:is_resumed() return lib.SSL_session_reused(self.ssl) == 1 end

--- The protocol; nil: none.
function client:alpn()
  local name, n = ffi.new "const char *[1]", ffi.new "unsigned[1]"
  lib.SSL_get0_alpn_selected(self.ssl, name, n)
  return n[0] > 0 and ffi.string(name[0], n[0]) or nil
end

--- The server's certificate: its subject, and the kind of its key.
---@return string subject "/CN=server"
---@return "rsa"|"ec" kind
function client:certificate()
  local found = ffi.gc(lib.SSL_get1_peer_certificate(self.ssl), lib.X509_free)
  local text = ffi.new "char[256]"
  lib.X509_NAME_oneline(lib.X509_get_subject_name(found), text, 256)
  return ffi.string(text), lib.EVP_PKEY_get_base_id(lib.X509_get0_pubkey(found)) == RSA and "rsa" or "ec"
end

--- What the server has stapled; nil: nothing.
function client:status()
  local bytes = ffi.new "char *[1]"
  local n = tonumber(lib.SSL_ctrl(self.ssl, STATUS_RESPONSE, 0, bytes))
  return n > 0 and ffi.string(bytes[0], n) or nil
end

--- To come back with. Of 1.3 there is one once something was read.
function client:session() return ffi.gc(lib.SSL_get1_session(self.ssl), lib.SSL_SESSION_free) end

-- ---- bytes ----

function client:send(bytes)
  local ok, why = drive(self, function() return lib.SSL_write(self.ssl, bytes, #bytes) end)
  return ok and self or error("send: " .. why, 2)
end

local BUFFER = ffi.new("char[?]", CHUNK)

-- What comes next; or nil, and how the stream has ended.
local function receive(self)
  local n, how = drive(self, function() return lib.SSL_read(self.ssl, BUFFER, CHUNK) end)
  if not n then return nil, how end
  return ffi.string(BUFFER, n)
end

--- The bytes of one record, each by itself.
function client:trickle(bytes)
  self.wire:trickle(self:record(bytes))
  return self
end

--- What comes next, all of it that has come; or nil, and how the stream has ended.
---@return string? bytes
---@return string? how as of recv_all()
function client:recv_some()
  local held = self.held or ""
  self.held = ""
  if held ~= "" then return held end
  return receive(self)
end

--- Without its "\n".
function client:recv_line()
  self.held = self.held or ""
  while not self.held:find("\n", 1, true) do
    local bytes, how = receive(self)
    if not bytes then error(("recv: %s before the end of a line: %q"):format(how, self.held), 2) end
    self.held = self.held .. bytes
  end
  local line, rest = self.held:match "^([^\n]*)\n(.*)$"
  self.held = rest
  return line
end

function client:recv_exact(n)
  local pieces, got = { self.held or "" }, #(self.held or "")
  while got < n do
    local bytes, how = receive(self)
    if not bytes then error(("recv: %s after %d of %d bytes"):format(how, got, n), 2) end
    pieces[#pieces + 1], got = bytes, got + #bytes
  end
  local all = table.concat(pieces)
  self.held = all:sub(n + 1)
  return all:sub(1, n)
end

--- Everything up to the end: "closed by notice", or "closed", "reset" or what OpenSSL says.
---@return string bytes
---@return string how
function client:recv_all()
  local pieces = { self.held or "" }
  self.held = ""
  while true do
    local bytes, how = receive(self)
    if not bytes then return table.concat(pieces), how end
    pieces[#pieces + 1] = bytes
  end
end

function client:echo_line(line, answer)
  local got = self:send(line .. "\n"):recv_line()
  if got ~= (answer or line) then error(("sent line %q, got back %q"):format(line, got), 2) end
  return self
end

--- Our close_notify. The network's end of our side is wire:shutdown("send").
function client:notify()
  lib.SSL_shutdown(self.ssl)
  lib.ERR_clear_error()
  self.wire:send(flush(self))
  return self
end

--- Asks for another handshake, as TLS 1.2 allows. What became of it, as for handshake().
function client:renegotiate()
  assert(lib.SSL_renegotiate(self.ssl) == 1)
  return self:handshake()
end

--- What a write would put on the wire, without sending it: a record.
---@return string
function client:record(bytes)
  assert(lib.SSL_write(self.ssl, bytes, #bytes) == #bytes)
  return flush(self)
end

function client:close() self.wire:close() return self end
function client:reset() self.wire:reset() return self end

return M
