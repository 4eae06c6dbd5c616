#include "tls/client.h"

#include "tls/context.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_client {
	SSL *ssl;
	BIO *from_wire, *to_wire; /* the connection's */
	char *queued;             /* what is said once the handshake is over */
	size_t queued_bytes;
	const char *why; /* static text */
	bool ends, is_ended;
};

/* ---- its own certificate, and whom it trusts ---- */

static bool use_certificate(SSL_CTX *context, const char *certificate, const char *key)
{
	BIO *bio = BIO_new_mem_buf(certificate, -1);
	X509 *own = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	BIO_free(bio);
	bio = BIO_new_mem_buf(key, -1);
	EVP_PKEY *secret = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;
	BIO_free(bio);
	bool ok = own && secret && SSL_CTX_use_certificate(context, own) == 1 &&
		  SSL_CTX_use_PrivateKey(context, secret) == 1;
	X509_free(own);
	EVP_PKEY_free(secret);
	return ok;
}

static bool trust(SSL_CTX *context, const char *authority)
{
	BIO *bio = BIO_new_mem_buf(authority, -1);
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	bool ok = certificate && X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate) == 1;
	X509_free(certificate);
	BIO_free(bio);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	return ok;
}

static bool set_up(SSL_CTX *context, const struct tls_client_settings *settings)
{
	if (settings->version && (SSL_CTX_set_min_proto_version(context, settings->version) != 1 ||
				  SSL_CTX_set_max_proto_version(context, settings->version) != 1))
		return false;
	if (settings->certificate && !use_certificate(context, settings->certificate, settings->key))
		return false;
	if (settings->authority && !trust(context, settings->authority))
		return false;
	return !settings->alpn_bytes ||
	       !SSL_CTX_set_alpn_protos(context, settings->alpn, (unsigned)settings->alpn_bytes);
}

static bool client_begin(struct tls_client *client, SSL_CTX *context,
			 const struct tls_client_settings *settings)
{
	client->ssl = SSL_new(context);
	client->from_wire = BIO_new(BIO_s_mem());
	client->to_wire = BIO_new(BIO_s_mem());
	if (!client->ssl || !client->from_wire || !client->to_wire) {
		BIO_free(client->from_wire);
		BIO_free(client->to_wire);
		return false;
	}
	BIO_set_mem_eof_return(client->from_wire, -1);
	SSL_set_bio(client->ssl, client->from_wire, client->to_wire);
	SSL_set_connect_state(client->ssl);
	if (settings->session && SSL_set_session(client->ssl, settings->session) != 1)
		return false;
	if (settings->server_name &&
	    (SSL_set_tlsext_host_name(client->ssl, settings->server_name) != 1 ||
	     (settings->authority && SSL_set1_host(client->ssl, settings->server_name) != 1)))
		return false;
	return true;
}

struct tls_client *tls_client_new(const struct tls_client_settings *settings, char *why, size_t size)
{
	tls_library_init();
	struct tls_client *client = calloc(1, sizeof *client);
	SSL_CTX *context = client ? SSL_CTX_new(TLS_client_method()) : NULL;
	bool ok = context && set_up(context, settings) && client_begin(client, context, settings);
	SSL_CTX_free(context);
	if (!ok) {
		unsigned long error = ERR_peek_last_error();
		const char *reason = error ? ERR_reason_error_string(error) : NULL;
		snprintf(why, size, "%s", reason ? reason : "not enough memory");
		ERR_clear_error();
		tls_client_free(client);
		return NULL;
	}
	tls_client_put(client, "", 0);
	return client;
}

void tls_client_free(struct tls_client *client)
{
	if (!client)
		return;
	SSL_free(client->ssl);
	free(client->queued);
	free(client);
}

/* ---- to and fro ---- */

static void note_failure(struct tls_client *client, int result)
{
	int error = SSL_get_error(client->ssl, result);
	if (error == SSL_ERROR_SSL && !client->why) {
		const char *reason = ERR_reason_error_string(ERR_peek_last_error());
		client->why = reason ? reason : "a broken record";
	}
	client->is_ended = client->is_ended || error == SSL_ERROR_ZERO_RETURN;
	ERR_clear_error();
}

/* What has waited for the handshake is said. */
static void say_queued(struct tls_client *client)
{
	size_t put;
	if (client->queued_bytes &&
	    SSL_write_ex(client->ssl, client->queued, client->queued_bytes, &put) != 1)
		note_failure(client, 0);
	free(client->queued);
	client->queued = NULL;
	client->queued_bytes = 0;
	if (client->ends)
		SSL_shutdown(client->ssl);
	ERR_clear_error();
}

bool tls_client_put(struct tls_client *client, const void *bytes, size_t n)
{
	if (n && BIO_write(client->from_wire, bytes, (int)n) != (int)n)
		return false;
	if (SSL_is_init_finished(client->ssl) || client->why)
		return true;
	ERR_clear_error();
	int result = SSL_do_handshake(client->ssl);
	if (result == 1)
		say_queued(client);
	else
		note_failure(client, result);
	return true;
}

bool tls_client_send(struct tls_client *client, const void *bytes, size_t n)
{
	size_t put;
	if (client->why || client->ends || !n)
		return !n;
	if (SSL_is_init_finished(client->ssl))
		return SSL_write_ex(client->ssl, bytes, n, &put) == 1;
	char *grown = realloc(client->queued, client->queued_bytes + n);
	if (!grown)
		return false;
	memcpy(grown + client->queued_bytes, bytes, n);
	client->queued = grown;
	client->queued_bytes += n;
	return true;
}

void tls_client_end(struct tls_client *client)
{
	if (!client->ends && SSL_is_init_finished(client->ssl))
		SSL_shutdown(client->ssl);
	client->ends = true;
	ERR_clear_error();
}

size_t tls_client_take(struct tls_client *client, void *to, size_t n)
{
	int got = BIO_read(client->to_wire, to, (int)n);
	return got > 0 ? (size_t)got : 0;
}

size_t tls_client_read(struct tls_client *client, void *to, size_t n)
{
	size_t got;
	if (!SSL_is_init_finished(client->ssl))
		return 0;
	ERR_clear_error();
	int result = SSL_read_ex(client->ssl, to, n, &got);
	if (result == 1)
		return got;
	note_failure(client, result);
	return 0;
}

bool tls_client_is_ended(const struct tls_client *client)
{
	return client->is_ended;
}

const char *tls_client_why(const struct tls_client *client)
{
	return client->why;
}

SSL *tls_client_ssl(const struct tls_client *client)
{
	return SSL_is_init_finished(client->ssl) ? client->ssl : NULL;
}
