#include "tls/context.h"

#include "tls/settings.h"
#include "tls/setup.h"
#include "tls/tickets.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
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

struct incoming_context {
	struct tls_context context; /* first */
	const struct tls_settings *settings;
	struct identity *identities;
	unsigned count;
};

static struct incoming_context *incoming_of(const struct tls_context *context)
{
	return (struct incoming_context *)(void *)context;
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
static const struct identity *identity_for(const struct incoming_context *context, const char *asked)
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
	const struct incoming_context *context = data;
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

/* ---- a context ---- */

static void set_modes(SSL_CTX *ssl, const struct tls_settings *settings)
{
	setup_modes(ssl, settings->min_version);
	SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
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

static bool set_client(SSL_CTX *ssl, const struct tls_settings *settings, const struct setup_why *why)
{
	if (settings->client == TLS_CLIENT_ANY)
		return true;
	if (settings->client == TLS_CLIENT_REQUEST) {
		setup_take_any(ssl);
		return true;
	}
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return setup_authority(ssl, &settings->authority, why);
}

/* Of one kind of key OpenSSL has one pair: another would take its place. */
static bool check_kinds(const SSL_CTX *ssl, const struct tls_pair *pair, int kinds[], unsigned count,
			const struct setup_why *why)
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

static bool check_ocsp(const struct tls_identity *identity, const struct setup_why *why)
{
	const unsigned char *bytes = identity->ocsp.bytes;
	if (!bytes)
		return true;
	OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &bytes, (long)identity->ocsp.count);
	OCSP_RESPONSE_free(response);
	if (!response)
		return setup_refuse(why, &identity->ocsp, "is no OCSP response in DER");
	if (identity->pair_count == 1)
		return true;
	snprintf(why->text, why->size,
		 "%s: a name with several certificates cannot have a response of one of them",
		 identity->ocsp.path);
	return false;
}

static bool set_identity(SSL_CTX *ssl, const struct tls_identity *identity, const struct setup_why *why)
{
	int kinds[TLS_PAIRS_MAX];
	for (unsigned i = 0; i < identity->pair_count; i++)
		if (!setup_pair(ssl, &identity->pairs[i], why) ||
		    !check_kinds(ssl, &identity->pairs[i], kinds, i, why))
			return false;
	return check_ocsp(identity, why);
}

static bool open_identity(struct incoming_context *context, unsigned i, const struct setup_why *why)
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
	return set_session_context(ssl, settings) && setup_ciphers(ssl, settings->ciphers, why) &&
	       set_identity(ssl, from, why) && set_client(ssl, settings, why);
}

static SSL *incoming_begin(const struct tls_context *context)
{
	SSL *ssl = SSL_new(incoming_of(context)->identities[0].ssl);
	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}

static void incoming_free(struct tls_context *context)
{
	struct incoming_context *incoming = incoming_of(context);
	for (unsigned i = 0; incoming->identities && i < incoming->count; i++)
		SSL_CTX_free(incoming->identities[i].ssl);
	free(incoming->identities);
	free(incoming);
}

static const struct tls_side INCOMING = { .begin = incoming_begin, .free = incoming_free };

struct tls_context *tls_context_new(const struct tls_settings *settings, char *why, size_t size)
{
	const struct setup_why explanation = { why, size };
	tls_library_init();
	snprintf(why, size, "not enough memory");
	struct incoming_context *incoming = calloc(1, sizeof *incoming);
	struct identity *identities = calloc(settings->identity_count, sizeof *identities);
	if (!incoming || !identities) {
		free(incoming);
		free(identities);
		return NULL;
	}
	*incoming =
	    (struct incoming_context){ { &INCOMING }, settings, identities, settings->identity_count };
	bool ok = true;
	for (unsigned i = 0; ok && i < incoming->count; i++)
		ok = open_identity(incoming, i, &explanation);
	if (ok)
		return &incoming->context;
	ERR_clear_error();
	incoming_free(&incoming->context);
	return NULL;
}

/* ---- of either side ---- */

void tls_context_free(struct tls_context *context)
{
	if (context)
		context->side->free(context);
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
