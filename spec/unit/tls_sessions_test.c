/* Connections out that come back, and the tickets of servers. */
#include "tls_steps.h"

#include <string.h>
#include <uv.h>

/* They meet, and end it as one should. Was the session one of before? */
static bool meet_again(void)
{
	char byte;
	meet();
	expect_met();
	bool is_resumed = SSL_session_reused(ssl_of(&ends.client));
	assert_int_equal(SSL_session_reused(ssl_of(&ends.server)), is_resumed);
	assert_int_equal(stream_shutdown(&ends.client.user), 0);
	ends_pass(&ends.client, &ends.server, SIZE_MAX);
	assert_int_equal(end_read(&ends.server, &byte, 1), 0);
	ends_free(&ends);
	return is_resumed;
}

static void the_next_connection_goes_on_with_the_session(void **state)
{
	(void)state;
	for (int verifies = 0; verifies < 2; verifies++) {
		for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
			outgoing.verify = verifies;
			make_both();
			cap_server(version);
			for (int i = 0; i < 4; i++)
				assert_int_equal(meet_again(), i > 0);
		}
	}
}

static void no_session_goes_to_another_context(void **state)
{
	(void)state;
	make_both();
	assert_false(meet_again());
	make_client();
	assert_false(meet_again());
}

static bool was_ticket_used(SSL_SESSION *const used[], size_t count, const SSL_SESSION *session)
{
	const unsigned char *one, *other;
	size_t one_bytes, other_bytes;
	SSL_SESSION_get0_ticket(session, &one, &one_bytes);
	for (size_t i = 0; i < count; i++) {
		SSL_SESSION_get0_ticket(used[i], &other, &other_bytes);
		if (one_bytes == other_bytes && !memcmp(one, other, one_bytes))
			return true;
	}
	return false;
}

/* With eight of them kept, the ninth connection that begins at once has none. */
static void a_ticket_is_used_once(void **state)
{
	(void)state;
	enum { AT_ONCE = 9 };
	SSL_SESSION *used[AT_ONCE];
	SSL *begun[AT_ONCE];
	make_both();
	meet();
	expect_met();
	for (int i = 0; i < 10; i++)
		assert_int_equal(SSL_new_session_ticket(ssl_of(&ends.server)), 1);
	assert_true(ends_say(&ends.server, &ends.client, "tickets"));
	assert_int_equal(stream_shutdown(&ends.client.user), 0);
	ends_free(&ends);
	for (size_t i = 0; i < AT_ONCE; i++) {
		begun[i] = client->side->begin(client);
		used[i] = SSL_get0_session(begun[i]);
		assert_int_equal(used[i] != NULL, i < 8);
		assert_true(!used[i] || !was_ticket_used(used, i, used[i]));
	}
	for (size_t i = 0; i < AT_ONCE; i++)
		SSL_free(begun[i]);
}

static void sessions_do_not_outlive_the_certificate(void **state)
{
	(void)state;
	make_both();
	assert_false(meet_again());
	meet();
	expect_met();
	X509_gmtime_adj(X509_getm_notAfter(SSL_get0_peer_certificate(ssl_of(&ends.client))), -1);
	ends_free(&ends);
	assert_false(meet_again());
}

/* Tickets come to connections that outlive their context: a script that is reloaded, say. */
static void tickets_may_come_when_the_context_is_gone(void **state)
{
	(void)state;
	make_both();
	meet();
	tls_context_free(client);
	client = NULL;
	expect_met();
	ends_free(&ends);
}

/* ---- messages that hold no byte for us ---- */

static void tickets_are_no_trouble(void **state)
{
	(void)state;
	char byte;
	for (int tickets = 0; tickets <= 20; tickets++) {
		make_both();
		meet();
		for (int i = 0; i < tickets; i++)
			assert_int_equal(SSL_new_session_ticket(ssl_of(&ends.server)), 1);
		assert_int_equal(SSL_do_handshake(ssl_of(&ends.server)), 1);
		ends_pass(&ends.server, &ends.client, SIZE_MAX);
		assert_int_equal(end_read(&ends.client, &byte, 1), UV_EAGAIN);
		expect_met();
		ends_free(&ends);
	}
}

static void a_flood_of_them_ends_it(void **state)
{
	(void)state;
	static const char WHY[] = "the server changes its keys, or sends tickets, over and over";
	for (int changes_keys = 0; changes_keys < 2; changes_keys++) {
		char byte;
		int i = 0;
		make_both();
		meet();
		expect_met();
		for (ends.client.err = UV_EAGAIN; i < 100 && ends.client.err == UV_EAGAIN; i++) {
			SSL *ssl = ssl_of(&ends.server);
			int done = changes_keys ? SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED)
						: SSL_new_session_ticket(ssl);
			assert_int_equal(done, 1);
			assert_int_equal(SSL_do_handshake(ssl), 1);
			ends_pass(&ends.server, &ends.client, SIZE_MAX);
			ends.client.err = (int)end_read(&ends.client, &byte, 1);
		}
		assert_in_range(i, 20, 50);
		expect_failure(&ends.client, WHY);
		ends_free(&ends);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		OUTGOING(the_next_connection_goes_on_with_the_session),
		OUTGOING(no_session_goes_to_another_context),
		OUTGOING(a_ticket_is_used_once),
		OUTGOING(sessions_do_not_outlive_the_certificate),
		OUTGOING(tickets_may_come_when_the_context_is_gone),
		OUTGOING(tickets_are_no_trouble),
		OUTGOING(a_flood_of_them_ends_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
