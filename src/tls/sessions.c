#include "tls/sessions.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS_MAX = 8 }; /* of a context: a server of 1.3 gives two to each connection */

struct sessions {
	SSL_SESSION *kept[SESSIONS_MAX]; /* the latest last */
	unsigned count;
};

/*
 * They are OpenSSL's context's, not a struct tls_context's: tickets come after the handshake, to connections that may
 * outlive that one.
 */
static int sessions_index = -1;

static void drop_first(struct sessions *sessions)
{
	SSL_SESSION_free(sessions->kept[0]);
	sessions->count--;
	memmove(sessions->kept, sessions->kept + 1, sessions->count * sizeof *sessions->kept);
}

static void on_free_context(void *context, void *data, CRYPTO_EX_DATA *all, int index, long number,
			    void *pointer)
{
	struct sessions *sessions = data;
	(void)context;
	(void)all;
	(void)index;
	(void)number;
	(void)pointer;
	while (sessions && sessions->count)
		drop_first(sessions);
	free(sessions);
}

static void make_sessions_index(void)
{
	sessions_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_free_context);
}

static struct sessions *sessions_of(const SSL *ssl)
{
	return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), sessions_index);
}

static bool is_used_once(const SSL_SESSION *session)
{
	return SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION;
}

/* 1: the reference is ours from now on. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
	struct sessions *sessions = sessions_of(ssl);
	while (sessions->count && (sessions->count == SESSIONS_MAX || !is_used_once(session)))
		drop_first(sessions);
	sessions->kept[sessions->count++] = session;
	return 1;
}

bool sessions_keep(SSL_CTX *context)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make_sessions_index);
	struct sessions *sessions = sessions_index < 0 ? NULL : calloc(1, sizeof *sessions);
	if (!sessions || SSL_CTX_set_ex_data(context, sessions_index, sessions) != 1) {
		free(sessions);
		return false;
	}
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(context, on_session);
	return true;
}

/* OpenSSL gives up those of connections that were cut off or have failed. */
static bool session_is_good(const SSL_SESSION *session)
{
	const X509 *certificate = SSL_SESSION_get0_peer((SSL_SESSION *)session);
	return SSL_SESSION_is_resumable(session) && certificate &&
	       X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0;
}

void sessions_resume(SSL *ssl)
{
	struct sessions *sessions = sessions_of(ssl);
	bool found = false;
	while (sessions->count && !found) {
		SSL_SESSION *session = sessions->kept[sessions->count - 1];
		found = session_is_good(session) && SSL_set_session(ssl, session) == 1;
		if (found && !is_used_once(session))
			break;
		SSL_SESSION_free(session);
		sessions->count--;
	}
}
