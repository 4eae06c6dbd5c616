#define _GNU_SOURCE
#include "tls.h"

#include "dial.h"

#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>

static SSL_CTX *context;
static SSL_SESSION *session; /* the newest, where one is to be resumed */

static int believe(X509_STORE_CTX *store, void *data)
{
	(void)store;
	(void)data;
	return 1;
}

/* 1: the session is kept. */
static int on_session(SSL *tls, SSL_SESSION *newest)
{
	(void)tls;
	SSL_SESSION_free(session);
	session = newest;
	return 1;
}

void tls_prepare(const struct options *o)
{
	if (!o->tls)
		return;
	signal(SIGPIPE, SIG_IGN); /* OpenSSL's sockets write(2) */
	context = SSL_CTX_new(TLS_client_method());
	if (!context || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1)
		die("SSL_CTX_new");
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(context, 1);
	SSL_CTX_set_cert_verify_callback(context, believe, NULL);
	SSL_CTX_set_session_cache_mode(context, o->resume ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
							  : SSL_SESS_CACHE_OFF);
	if (o->resume)
		SSL_CTX_sess_set_new_cb(context, on_session);
}

/* What a call that failed means, as an errno. */
static int errno_of(SSL *tls)
{
	int error = SSL_get_error(tls, 0);

	ERR_clear_error();
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return EAGAIN;
	return error == SSL_ERROR_ZERO_RETURN ? 0 : EPROTO;
}

/* A copy of the newest session: OpenSSL uses each once, and others may have to begin before there is the next. */
static bool resume(SSL *tls)
{
	SSL_SESSION *copy = SSL_SESSION_dup(session);
	bool ok = copy && SSL_set_session(tls, copy) == 1;

	SSL_SESSION_free(copy);
	return ok;
}

SSL *tls_start(int fd)
{
	SSL *tls = SSL_new(context);

	if (!tls || SSL_set_fd(tls, fd) != 1 || (session && !resume(tls)))
		die("SSL_new");
	SSL_set_connect_state(tls);
	if (SSL_do_handshake(tls) != 1)
		ERR_clear_error(); /* a lasting one comes again */
	return tls;
}

bool tls_finish(SSL *tls)
{
	bool resumes = session != NULL;

	while (SSL_do_handshake(tls) != 1) {
		short events = SSL_want_write(tls) ? POLLOUT : POLLIN;

		errno = errno_of(tls);
		if (errno != EAGAIN || !dial_wait(SSL_get_fd(tls), events))
			return false;
	}
	errno = EKEYREJECTED; /* a full handshake in its place */
	return !resumes || SSL_session_reused(tls);
}

SSL *tls_dial(int fd)
{
	SSL *tls = tls_start(fd);

	if (!tls_finish(tls))
		die("handshake");
	return tls;
}

ssize_t tls_send(SSL *tls, const uint8_t *bytes, size_t len)
{
	size_t sent = 0, put;

	/* Record by record. */
	for (; sent < len; sent += put)
		if (SSL_write_ex(tls, bytes + sent, len - sent, &put) != 1) {
			errno = errno_of(tls);
			return sent ? (ssize_t)sent : -1;
		}
	return (ssize_t)sent;
}

ssize_t tls_recv(SSL *tls, uint8_t *bytes, size_t len)
{
	size_t got = 0, more;

	do {
		if (SSL_read_ex(tls, bytes + got, len - got, &more) != 1) {
			errno = errno_of(tls);
			return got ? (ssize_t)got : errno ? -1 : 0;
		}
		got += more;
	} while (got < len && SSL_has_pending(tls));
	return (ssize_t)got;
}

void tls_end(SSL *tls)
{
	if (!tls)
		return;
	SSL_shutdown(tls);
	ERR_clear_error();
	SSL_free(tls);
}
