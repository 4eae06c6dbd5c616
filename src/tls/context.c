#include "tls/context.h"

#include "tls/settings.h"
#include "tls/tickets.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Of one identity. */
struct identity {
	const char *name; /* the settings' */
	SSL_CTX *ssl;
	const struct tls_file *ocsp;
};

struct tls_context {
	const struct tls_settings *settings;
	struct identity *identities;
	unsigned count;
};

/* ---- from PEM ---- */

struct explanation {
	char *text;
	size_t size;
};

/* False, with what OpenSSL has to say of the file. */
static bool refuse(const struct explanation *why, const struct tls_file *file, const char *what)
{
	unsigned long error = ERR_peek_last_error();
	const char *reason = error ? ERR_reason_error_string(error) : NULL;
	snprintf(why->text, why->size, "%s %s%s%s", file->path, what, reason ? ": " : "",
		 reason ? reason : "");
	ERR_clear_error();
	return false;
}

/* No key has a password here: nobody could be asked for it. */
static int no_password(char *to, int size, int writes, void *data)
{
	(void)to;
	(void)size;
	(void)writes;
	*(bool *)data = true;
	return -1;
}

static BIO *bio_of(const struct tls_file *file)
{
	return BIO_new_mem_buf(file->bytes, (int)file->count);
}

/* The first certificate of a file is the server's, the others lead to an authority. */
static bool use_chain(SSL_CTX *ssl, const struct tls_file *file, const struct explanation *why)
{
	BIO *bio = bio_of(file);
	X509 *first = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL, *next;
	bool ok = first && SSL_CTX_use_certificate(ssl, first) == 1;
	X509_free(first);
	if (!ok) {
		BIO_free(bio);
		return refuse(why, file, "has no certificate that can be used");
	}
	while (ok && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		ok = SSL_CTX_add0_chain_cert(ssl, next) == 1;
		if (!ok)
			X509_free(next);
	}
	BIO_free(bio);
	bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	if (!ok || !is_end)
		return refuse(why, file, "has a certificate in its chain that cannot be used");
	ERR_clear_error();
	return true;
}

static bool use_key(SSL_CTX *ssl, const struct tls_pair *pair, const struct explanation *why)
{
	bool is_locked = false;
	BIO *bio = bio_of(&pair->key);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, &is_locked) : NULL;
	BIO_free(bio);
	if (!key && is_locked) {
		ERR_clear_error();
		return refuse(why, &pair->key, "is locked by a password: leave the key without one");
	}
	if (!key)
		return refuse(why, &pair->key, "has no private key that can be used");
	bool ok = SSL_CTX_use_PrivateKey(ssl, key) == 1;
	EVP_PKEY_free(key);
	if (!ok || SSL_CTX_check_private_key(ssl) != 1) {
		ERR_clear_error();
		snprintf(why->text, why->size, "%s is not the key of %s", pair->key.path,
			 pair->certificate.path);
		return false;
	}
	return true;
}

static bool use_authority(SSL_CTX *ssl, const struct tls_file *file, const struct explanation *why)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);
	BIO *bio = bio_of(file);
	unsigned count = 0;
	bool ok = bio;
	for (X509 *next; ok && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL)); count++) {
		ok = X509_STORE_add_cert(store, next) == 1 && SSL_CTX_add_client_CA(ssl, next) == 1;
		X509_free(next);
	}
	BIO_free(bio);
	if (!count)
		return refuse(why, file, "has no certificate of an authority");
	if (!ok || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return refuse(why, file, "has a certificate of an authority that cannot be used");
	ERR_clear_error();
	return true;
}

/* ---- what clients ask for ---- */

/* Does a name, or its "*." form, stand for what a client asks for (RFC 6125 6.4.3: one label)? */
static bool name_matches(const char *name, const char *asked)
{
	if (name[0] != '*')
		return !strcasecmp(name, asked);
	const char *rest = strchr(asked, '.');
	return rest && rest != asked && !strcasecmp(name + 1, rest);
}

/* An exact name before a wildcard; else the first. */
static const struct identity *identity_for(const struct tls_context *context, const char *asked)
{
	const struct identity *wild = &context->identities[0];
	for (unsigned i = context->count; i-- > 1;) {
		const struct identity *each = &context->identities[i];
		if (!name_matches(each->name, asked))
			continue;
		if (each->name[0] != '*')
			return each;
		wild = each;
	}
	return wild;
}

static int on_server_name(SSL *ssl, int *alert, void *data)
{
	const struct tls_context *context = data;
	const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	(void)alert;
	if (!asked)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_SSL_CTX(ssl, identity_for(context, asked)->ssl);
	return SSL_TLSEXT_ERR_OK;
}

/* The server's order counts. Who offers none that it knows is refused (RFC 7301 3.2). */
static int on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *bytes, const unsigned char *offered,
		   unsigned offered_bytes, void *data)
{
	const struct tls_settings *settings = data;
	unsigned char *found;
	(void)ssl;
	if (SSL_select_next_proto(&found, bytes, settings->alpn, (unsigned)settings->alpn_bytes, offered,
				  offered_bytes) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*chosen = found;
	return SSL_TLSEXT_ERR_OK;
}

/* OpenSSL frees the copy that it is given. */
static int on_status(SSL *ssl, void *data)
{
	const struct tls_file *ocsp = data;
	unsigned char *copy = OPENSSL_memdup(ocsp->bytes, ocsp->count);
	if (!copy)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)ocsp->count);
	return SSL_TLSEXT_ERR_OK;
}

/* Whoever it is, the handler decides: no chain is built, which would cost the server what a stranger likes. */
static int take_any(X509_STORE_CTX *store, void *data)
{
	(void)data;
	X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return 1;
}

/* ---- a context ---- */

static void set_modes(SSL_CTX *ssl, const struct tls_settings *settings)
{
	SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
				     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_min_proto_version(ssl, settings->min_version);
	/* Of 1.2 only what keeps past talk secret, and is no CBC; exchanges of keys that cost the server little. */
	SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20");
	SSL_CTX_set1_groups_list(ssl, "X25519:P-256:P-384");
	SSL_CTX_set_read_ahead(ssl, 1); /* one read for a record, not one for its head and one for the rest */
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF); /* tickets are kept by clients */
	SSL_CTX_set_num_tickets(ssl, 1);
	tickets_use(ssl);
}

/* Sessions of other rules are no sessions here. */
static bool set_session_context(SSL_CTX *ssl, const struct tls_settings *settings)
{
	const struct tls_file *authority = &settings->authority;
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned bytes = 0;
	EVP_MD_CTX *sum = EVP_MD_CTX_new();
	bool ok =
	    sum && EVP_DigestInit_ex(sum, EVP_sha256(), NULL) &&
	    EVP_DigestUpdate(sum, &settings->client, sizeof settings->client) &&
	    EVP_DigestUpdate(sum, &settings->min_version, sizeof settings->min_version) &&
	    EVP_DigestUpdate(sum, authority->bytes, authority->count) &&
	    (!settings->ciphers || EVP_DigestUpdate(sum, settings->ciphers, strlen(settings->ciphers))) &&
	    EVP_DigestFinal_ex(sum, digest, &bytes);
	EVP_MD_CTX_free(sum);
	/* A session that is resumed does not look at the client's certificate again, which may have ended since. */
	if (settings->client != TLS_CLIENT_ANY) {
		SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
		SSL_CTX_set_num_tickets(ssl, 0);
	}
	return ok && SSL_CTX_set_session_id_context(ssl, digest, bytes) == 1;
}

static bool set_client(SSL_CTX *ssl, const struct tls_settings *settings, const struct explanation *why)
{
	if (settings->client == TLS_CLIENT_ANY)
		return true;
	if (settings->client == TLS_CLIENT_REQUEST) {
		SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_cert_verify_callback(ssl, take_any, NULL);
		return true;
	}
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return use_authority(ssl, &settings->authority, why);
}

/* Does OpenSSL know one by this name? In a list it passes over those that it does not. */
static bool is_cipher(SSL_CTX *ssl, const char *name)
{
	return !strncmp(name, "TLS_", 4) ? SSL_CTX_set_ciphersuites(ssl, name) == 1
					 : SSL_CTX_set_cipher_list(ssl, name) == 1;
}

/* A list of OpenSSL's names: those of 1.3 begin with TLS_. */
static bool set_ciphers(SSL_CTX *ssl, const char *ciphers, const struct explanation *why)
{
	char old[1024] = "", new[1024] = "", copy[1024], *rest;
	if (!ciphers)
		return true;
	snprintf(copy, sizeof copy, "%s", ciphers);
	for (char *name = strtok_r(copy, ":", &rest); name; name = strtok_r(NULL, ":", &rest)) {
		char *to = strncmp(name, "TLS_", 4) != 0 ? old : new;
		size_t at = strlen(to);
		if (!is_cipher(ssl, name)) {
			ERR_clear_error();
			snprintf(why->text, why->size, "ciphers: OpenSSL knows no %s", name);
			return false;
		}
		snprintf(to + at, sizeof old - at, "%s%s", at ? ":" : "", name);
	}
	return (!*old || SSL_CTX_set_cipher_list(ssl, old) == 1) &&
	       (!*new || SSL_CTX_set_ciphersuites(ssl, new) == 1);
}

/* Of one kind of key OpenSSL has one pair: another would take its place. */
static bool check_kinds(const SSL_CTX *ssl, const struct tls_pair *pair, int kinds[], unsigned count,
			const struct explanation *why)
{
	kinds[count] = EVP_PKEY_base_id(SSL_CTX_get0_privatekey(ssl));
	for (unsigned i = 0; i < count; i++) {
		if (kinds[i] != kinds[count])
			continue;
		snprintf(why->text, why->size,
			 "%s is the second key of its kind: one of each (RSA, EC) can be served",
			 pair->key.path);
		return false;
	}
	return true;
}

static bool check_ocsp(const struct tls_identity *identity, const struct explanation *why)
{
	const unsigned char *bytes = identity->ocsp.bytes;
	if (!bytes)
		return true;
	OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &bytes, (long)identity->ocsp.count);
	OCSP_RESPONSE_free(response);
	if (!response)
		return refuse(why, &identity->ocsp, "is no OCSP response in DER");
	if (identity->pair_count == 1)
		return true;
	snprintf(why->text, why->size,
		 "%s: a name with several certificates cannot have a response of one of them",
		 identity->ocsp.path);
	return false;
}

static bool set_identity(SSL_CTX *ssl, const struct tls_identity *identity, const struct explanation *why)
{
	int kinds[TLS_PAIRS_MAX];
	for (unsigned i = 0; i < identity->pair_count; i++)
		if (!use_chain(ssl, &identity->pairs[i].certificate, why) ||
		    !use_key(ssl, &identity->pairs[i], why) ||
		    !check_kinds(ssl, &identity->pairs[i], kinds, i, why))
			return false;
	return check_ocsp(identity, why);
}

static bool open_identity(struct tls_context *context, unsigned i, const struct explanation *why)
{
	const struct tls_settings *settings = context->settings;
	const struct tls_identity *from = &settings->identities[i];
	SSL_CTX *ssl = SSL_CTX_new(TLS_server_method());
	if (!ssl) {
		snprintf(why->text, why->size, "not enough memory");
		return false;
	}
	context->identities[i] = (struct identity){ from->name, ssl, &from->ocsp };
	set_modes(ssl, settings);
	SSL_CTX_set_tlsext_servername_callback(ssl, on_server_name);
	SSL_CTX_set_tlsext_servername_arg(ssl, context);
	if (settings->alpn)
		SSL_CTX_set_alpn_select_cb(ssl, on_alpn, (void *)settings);
	if (from->ocsp.bytes) {
		SSL_CTX_set_tlsext_status_cb(ssl, on_status);
		SSL_CTX_set_tlsext_status_arg(ssl, (void *)&from->ocsp);
	}
	return set_session_context(ssl, settings) && set_ciphers(ssl, settings->ciphers, why) &&
	       set_identity(ssl, from, why) && set_client(ssl, settings, why);
}

struct tls_context *tls_context_new(const struct tls_settings *settings, char *why, size_t size)
{
	const struct explanation explanation = { why, size };
	tls_library_init();
	snprintf(why, size, "not enough memory");
	struct tls_context *context = calloc(1, sizeof *context);
	struct identity *identities = calloc(settings->identity_count, sizeof *identities);
	if (!context || !identities) {
		free(context);
		free(identities);
		return NULL;
	}
	*context = (struct tls_context){ settings, identities, settings->identity_count };
	bool ok = true;
	for (unsigned i = 0; ok && i < context->count; i++)
		ok = open_identity(context, i, &explanation);
	if (ok)
		return context;
	ERR_clear_error();
	tls_context_free(context);
	return NULL;
}

void tls_context_free(struct tls_context *context)
{
	if (!context)
		return;
	for (unsigned i = 0; context->identities && i < context->count; i++)
		SSL_CTX_free(context->identities[i].ssl);
	free(context->identities);
	free(context);
}

SSL *tls_context_accept(const struct tls_context *context)
{
	SSL *ssl = SSL_new(context->identities[0].ssl);
	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}

static void init_library(void)
{
	OPENSSL_init_ssl(
	    OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL);
}

void tls_library_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, init_library);
}
