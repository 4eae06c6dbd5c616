/* conn.tls: what a handshake has settled, and who the client is. */
#include "bind/bind.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

static void tls_set_text(lua_State *lua, const char *key, const char *text)
{
	if (!text)
		return;
	lua_pushstring(lua, text);
	lua_setfield(lua, -2, key);
}

/* A name as RFC 2253 writes it: "CN=alice,O=Example". */
static void tls_set_name(lua_State *lua, const char *key, const X509_NAME *name)
{
	char text[1024];
	BIO *bio = BIO_new(BIO_s_mem());
	int n = 0;
	if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0)
		n = BIO_read(bio, text, sizeof text);
	BIO_free(bio);
	lua_pushlstring(lua, text, n > 0 ? (size_t)n : 0);
	lua_setfield(lua, -2, key);
}

/* Seconds since 1970. */
static void tls_set_time(lua_State *lua, const char *key, const ASN1_TIME *time)
{
	struct tm at;
	if (!ASN1_TIME_to_tm(time, &at))
		return;
	lua_pushnumber(lua, (lua_Number)timegm(&at));
	lua_setfield(lua, -2, key);
}

static void set_hex(lua_State *lua, const char *key, const unsigned char *bytes, size_t n)
{
	char text[2 * EVP_MAX_MD_SIZE + 1];
	if (n > EVP_MAX_MD_SIZE)
		n = EVP_MAX_MD_SIZE;
	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	lua_pushlstring(lua, text, 2 * n);
	lua_setfield(lua, -2, key);
}

static void set_serial(lua_State *lua, const X509 *certificate)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
	set_hex(lua, "serial", ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial));
}

static void set_fingerprint(lua_State *lua, const X509 *certificate)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n;
	if (X509_digest(certificate, EVP_sha256(), digest, &n) == 1)
		set_hex(lua, "fingerprint", digest, n);
}

enum { NAMES_BYTES = 8192 };

/* Of the alternative names those of a kind, each ended by a zero byte. How many bytes that is. */
static size_t copy_names(const X509 *certificate, int kind, char text[NAMES_BYTES])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	size_t at = 0;
	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type != kind)
			continue;
		size_t n = (size_t)ASN1_STRING_length(name->d.ia5);
		const unsigned char *bytes = ASN1_STRING_get0_data(name->d.ia5);
		if (memchr(bytes, 0, n) || n >= NAMES_BYTES - at)
			continue; /* one with a zero byte is meant to deceive */
		memcpy(text + at, bytes, n);
		text[at + n] = '\0';
		at += n + 1;
	}
	GENERAL_NAMES_free(names);
	return at;
}

/* Nothing of OpenSSL's is held while Lua allocates: that may raise. */
static void set_names(lua_State *lua, const char *key, const X509 *certificate, int kind)
{
	char text[NAMES_BYTES];
	size_t bytes = copy_names(certificate, kind, text);
	int count = 0;
	lua_newtable(lua);
	for (size_t at = 0; at < bytes; at += strlen(text + at) + 1) {
		lua_pushstring(lua, text + at);
		lua_rawseti(lua, -2, ++count);
	}
	lua_setfield(lua, -2, key);
}

static void push_certificate(lua_State *lua, const SSL *ssl, const X509 *certificate)
{
	lua_createtable(lua, 0, 8);
	tls_set_name(lua, "subject", X509_get_subject_name(certificate));
	tls_set_name(lua, "issuer", X509_get_issuer_name(certificate));
	set_names(lua, "names", certificate, GEN_DNS);
	set_names(lua, "emails", certificate, GEN_EMAIL);
	set_serial(lua, certificate);
	tls_set_time(lua, "not_before", X509_get0_notBefore(certificate));
	tls_set_time(lua, "not_after", X509_get0_notAfter(certificate));
	set_fingerprint(lua, certificate);
	lua_pushboolean(lua, SSL_get_verify_result(ssl) == X509_V_OK);
	lua_setfield(lua, -2, "verified");
}

void bind_push_tls(lua_State *lua, struct ssl_st *ssl)
{
	const unsigned char *alpn;
	unsigned alpn_bytes;
	lua_createtable(lua, 0, 6);
	tls_set_text(lua, "version", SSL_version(ssl) == TLS1_3_VERSION ? "1.3" : "1.2");
	tls_set_text(lua, "cipher", SSL_get_cipher_name(ssl));
	tls_set_text(lua, "server_name", SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
	SSL_get0_alpn_selected(ssl, &alpn, &alpn_bytes);
	if (alpn_bytes) {
		lua_pushlstring(lua, (const char *)alpn, alpn_bytes);
		lua_setfield(lua, -2, "alpn");
	}
	lua_pushboolean(lua, SSL_session_reused(ssl));
	lua_setfield(lua, -2, "resumed");
	const X509 *certificate = SSL_get0_peer_certificate(ssl);
	if (certificate) {
		push_certificate(lua, ssl, certificate);
		lua_setfield(lua, -2, "peer_certificate");
	}
	ERR_clear_error();
}
