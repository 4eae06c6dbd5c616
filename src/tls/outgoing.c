#include "tls/outgoing.h"

#include "tls/authorities.h"
#include "tls/context.h"
#include "tls/sessions.h"
#include "tls/setup.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct outgoing_context {
	struct tls_context context; /* first */
	SSL_CTX *ssl;
	char *asked; /* the name; NULL: none */
};

static struct outgoing_context *outgoing_of(const struct tls_context *context)
{
	return (struct outgoing_context *)(void *)context;
}

/* ---- whom it talks with ---- */

static bool is_address(const char *name)
{
	struct in6_addr bytes;
	return inet_pton(AF_INET, name, &bytes) == 1 || inet_pton(AF_INET6, name, &bytes) == 1;
}

/*
 * Without a name any certificate that the authorities have signed would do, and one that begins with a dot stands for
 * all names below it.
 */
static bool set_verified_name(SSL_CTX *ssl, const char *name, const struct setup_why *why)
{
	X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ssl);
	if (!name || !*name || *name == '.') {
		snprintf(why->text, why->size, "server_name: there is no name to verify a certificate for");
		return false;
	}
	if (is_address(name))
		return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
						   X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

/* Who is in `authority` is trusted though another has signed it: the server's own certificate can be named there. */
static bool set_authorities(SSL_CTX *ssl, const struct tls_file *authority, const struct setup_why *why)
{
	if (authority->bytes) {
		X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ssl), X509_V_FLAG_PARTIAL_CHAIN);
		return setup_authority(ssl, authority, why);
	}
	X509_STORE *system = authorities_of_system();
	if (system)
		SSL_CTX_set_cert_store(ssl, system);
	return system;
}

static bool set_server(SSL_CTX *ssl, const struct tls_outgoing *rules, const struct setup_why *why)
{
	if (!rules->verify) {
		setup_take_any(ssl);
		return true;
	}
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	return set_verified_name(ssl, rules->server_name, why) &&
	       set_authorities(ssl, &rules->authority, why);
}

/* ---- a context ---- */

static bool set_outgoing(SSL_CTX *ssl, const struct tls_outgoing *rules, const struct setup_why *why)
{
	setup_modes(ssl, rules->min_version);
	if (rules->alpn && SSL_CTX_set_alpn_protos(ssl, rules->alpn, (unsigned)rules->alpn_bytes))
		return false;
	return sessions_keep(ssl) && setup_ciphers(ssl, rules->ciphers, why) &&
	       (!rules->pair.certificate.bytes || setup_pair(ssl, &rules->pair, why)) &&
	       set_server(ssl, rules, why);
}

static SSL *outgoing_begin(const struct tls_context *context)
{
	const struct outgoing_context *outgoing = outgoing_of(context);
	SSL *ssl = SSL_new(outgoing->ssl);
	if (!ssl)
		return NULL;
	SSL_set_connect_state(ssl);
	if (outgoing->asked && SSL_set_tlsext_host_name(ssl, outgoing->asked) != 1) {
		SSL_free(ssl);
		return NULL;
	}
	sessions_resume(ssl);
	return ssl;
}

static void outgoing_free(struct tls_context *context)
{
	struct outgoing_context *outgoing = outgoing_of(context);
	SSL_CTX_free(outgoing->ssl);
	free(outgoing->asked);
	free(outgoing);
}

static const struct tls_side OUTGOING = { .begin = outgoing_begin,
					  .free = outgoing_free,
					  .speaks_first = true };

struct tls_context *tls_outgoing_context(const struct tls_outgoing *rules, char *why, size_t size)
{
	const struct setup_why explanation = { why, size };
	const char *name = rules->server_name;
	bool asks = name && !is_address(name);
	tls_library_init();
	snprintf(why, size, "not enough memory");
	struct outgoing_context *outgoing = calloc(1, sizeof *outgoing);
	if (!outgoing)
		return NULL;
	outgoing->context.side = &OUTGOING;
	outgoing->ssl = SSL_CTX_new(TLS_client_method());
	outgoing->asked = asks ? strdup(name) : NULL;
	if (outgoing->ssl && (outgoing->asked || !asks) && set_outgoing(outgoing->ssl, rules, &explanation))
		return &outgoing->context;
	ERR_clear_error();
	outgoing_free(&outgoing->context);
	return NULL;
}

void tls_outgoing_deinit(struct tls_outgoing *outgoing)
{
	tls_file_deinit(&outgoing->authority);
	tls_file_deinit(&outgoing->pair.certificate);
	tls_file_deinit(&outgoing->pair.key);
	free(outgoing->server_name);
	free(outgoing->alpn);
	free(outgoing->ciphers);
	*outgoing = (struct tls_outgoing){ 0 };
}
