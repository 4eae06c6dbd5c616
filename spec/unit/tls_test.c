/* TLS as a layer: a handshake that is cut, changed or slow, and a stream that takes bytes as it likes. */
#include "conn_steps.h"

#include "net/poller.h"
#include "support/pem.h"
#include "tls/client.h"
#include "tls/context.h"
#include "tls/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { WIRE_BYTES = 65536, ROUNDS = 300, LINES = 40, OPENING_MS = 1000 };

static struct tls_settings *settings;
static struct tls_context *context;
static int tls_begin(void **state)
{
	char why[256];
	int err = conns_begin(state);
	settings = pem_settings();
	context = tls_context_new(settings, why, sizeof why);
	assert_non_null(context);
	world_top = (struct layer){ &TLS_STREAM, context };
	rules.timeouts.opening = OPENING_MS;
	line.empty = CODEC_EMPTY_IGNORE; /* what comes is not what is handed up */
	at_random_seed = 20261129;
	return err;
}

static int tls_end(void **state)
{
	(void)state;
	int err = conns_end(state);
	tls_context_free(context);
	tls_settings_free(settings);
	return err;
}

#define WITH_TLS(TEST) cmocka_unit_test_setup_teardown(TEST, tls_begin, tls_end)

static struct tls_client *new_client(int version)
{
	char why[256];
	struct tls_client *client =
	    tls_client_new(&(struct tls_client_settings){ .version = version }, why, sizeof why);
	assert_non_null(client);
	return client;
}

/* What the client has to say goes to the server. */
static void client_speaks(struct client *c, struct tls_client *client)
{
	char wire[WIRE_BYTES];
	size_t n = tls_client_take(client, wire, sizeof wire);
	if (n)
		world_put(c, wire, n);
}

/* ... and what the server has said comes to the client. */
static void client_hears(struct client *c, struct tls_client *client)
{
	char wire[WIRE_BYTES];
	size_t n = memory_stream_take(&c->memory, wire, sizeof wire);
	assert_true(tls_client_put(client, wire, n));
}

static void exchange(struct client *c, struct tls_client *client)
{
	for (int i = 0; i < 4; i++) {
		client_speaks(c, client);
		world_run();
		client_hears(c, client);
	}
}

/* The connections of a test that are over make room for others. */
static void forget(struct client *c)
{
	assert_int_equal(c->gone, 1);
	clients[c->slot] = NULL;
	memory_stream_deinit(&c->memory);
	free(c);
}

static void an_agent_begins_when_it_has_opened(void **state)
{
	(void)state;
	for (int version = 0x0303; version <= 0x0304; version++) {
		struct tls_client *client = new_client(version);
		struct client *c = join();
		char said[64];
		c->echo = true;
		assert_int_equal(c->opened, 0);
		exchange(c, client);
		assert_int_equal(c->opened, 1);
		assert_true(tls_client_send(client, "hello\n", 6));
		exchange(c, client);
		assert_int_equal(tls_client_read(client, said, sizeof said), 6);
		assert_memory_equal(said, "hello\n", 6);
		tls_client_end(client);
		exchange(c, client);
		hang_up(c);
		expect_end(c, REASON_PEER);
		tls_client_free(client);
	}
}

static bool has_same_ticket(const SSL_SESSION *one, const SSL_SESSION *other)
{
	const unsigned char *a, *b;
	size_t a_bytes, b_bytes;
	SSL_SESSION_get0_ticket(one, &a, &a_bytes);
	SSL_SESSION_get0_ticket(other, &b, &b_bytes);
	return a_bytes == b_bytes && !memcmp(a, b, a_bytes);
}

/* A ticket of 1.3 is used once: every connection brings the one for the next. */
static void a_session_goes_on_again_and_again(void **state)
{
	(void)state;
	for (int version = 0x0303; version <= 0x0304; version++) {
		SSL_SESSION *session = NULL;
		for (int i = 0; i < 4; i++) {
			char why[256];
			struct tls_client *client = tls_client_new(
			    &(struct tls_client_settings){ .version = version, .session = session }, why,
			    sizeof why);
			assert_non_null(client);
			struct client *c = join();
			exchange(c, client);
			assert_int_equal(tls_client_read(client, why, sizeof why), 0); /* but tickets */
			SSL *ssl = tls_client_ssl(client);
			assert_int_equal(SSL_session_reused(ssl), i > 0);
			SSL_SESSION *next = SSL_get1_session(ssl);
			assert_true(SSL_SESSION_has_ticket(next));
			assert_false(version == 0x0304 && session && has_same_ticket(session, next));
			SSL_SESSION_free(session);
			session = next;
			tls_client_end(client);
			exchange(c, client);
			hang_up(c);
			expect_end(c, REASON_PEER);
			tls_client_free(client);
		}
		SSL_SESSION_free(session);
	}
}

/* A stream that has ended without a word of TLS's was cut off. */
static void an_end_without_a_word_is_a_reset(void **state)
{
	(void)state;
	struct tls_client *client = new_client(0);
	struct client *c = join();
	exchange(c, client);
	assert_true(tls_client_send(client, "one\n", 4));
	client_speaks(c, client);
	hang_up(c);
	assert_string_equal(c->seen, "one|");
	expect_end(c, REASON_RESET);
	tls_client_free(client);
}

/* A line has arrived, in a record that no single read has whole, and nobody has looked. */
static struct client *join_unread(struct tls_client *client)
{
	struct client *c = join();
	char wire[WIRE_BYTES];
	exchange(c, client);
	assert_true(tls_client_send(client, "one\n", 4));
	size_t n = tls_client_take(client, wire, sizeof wire);
	c->memory.read_max = 4;
	memory_stream_put(&c->memory, wire, n);
	return c;
}

static void a_record_in_pieces_is_served_before_a_reset(void **state)
{
	(void)state;
	struct tls_client *client = new_client(0);
	struct client *c = join_unread(client);
	memory_stream_reset(&c->memory);
	world_run();
	assert_string_equal(c->seen, "one|");
	expect_end(c, REASON_RESET);
	tls_client_free(client);
}

static void a_record_in_pieces_is_served_before_a_time_out(void **state)
{
	(void)state;
	rules.timeouts.idle = OPENING_MS;
	struct tls_client *client = new_client(0);
	struct client *c = join_unread(client);
	now_ms += 10 * OPENING_MS;
	conn_host_turn(&host, now_ms);
	assert_int_equal(c->timeouts, 0);
	assert_string_equal(c->seen, "one|");
	expect_open(c);
	tls_client_free(client);
}

static void a_record_in_pieces_is_served_before_a_drain_closes(void **state)
{
	(void)state;
	for (int is_over = 0; is_over < 2; is_over++) {
		struct tls_client *client = new_client(0);
		struct client *c = join_unread(client);
		c->echo = true;
		if (is_over)
			conn_end_drain(conn_of(c), CLOSE_FLUSH);
		else
			conn_drain(conn_of(c));
		conn_host_turn(&host, now_ms);
		assert_string_equal(c->seen, "one|");
		hang_up(c);
		expect_end(c, REASON_DRAIN);
		tls_client_free(client);
	}
}

/* The first words of a client; how many bytes they have. */
static size_t first_words(uint8_t *words)
{
	struct tls_client *client = new_client(0);
	size_t n = tls_client_take(client, words, WIRE_BYTES);
	tls_client_free(client);
	return n;
}

static void a_handshake_that_is_cut_ends_at_once(void **state)
{
	(void)state;
	uint8_t words[WIRE_BYTES];
	size_t n = first_words(words);
	assert_in_range(n, 100, 1000);
	for (size_t cut = 0; cut < n; cut++) {
		struct client *c = join();
		world_put(c, words, cut);
		world_run();
		assert_int_equal(c->closed, 0);
		hang_up(c);
		expect_end(c, REASON_TLS);
		assert_int_equal(c->opened, 0);
		forget(c);
	}
}

static void one_that_is_begun_has_its_time(void **state)
{
	(void)state;
	uint8_t words[WIRE_BYTES];
	size_t n = first_words(words);
	struct client *silent = join(), *slow = join();
	world_put(slow, words, n - 1);
	world_run();
	wait_ms(OPENING_MS - 1);
	assert_int_equal(silent->closed + slow->closed, 0);
	wait_ms(1);
	expect_end(silent, REASON_TLS);
	expect_end(slow, REASON_TLS);
}

/* Whatever a client begins with: it opens, or it is refused, and nobody is left waiting for ever. */
static void whatever_it_begins_with_it_opens_or_ends(void **state)
{
	(void)state;
	uint8_t words[WIRE_BYTES], changed[WIRE_BYTES];
	size_t n = first_words(words);
	unsigned refused = 0;
	for (size_t at = 0; at < n; at++) {
		struct client *c = join();
		memcpy(changed, words, n);
		changed[at] ^= (uint8_t)(1 + at_random(255));
		world_put(c, changed, n);
		world_run();
		refused += c->closed && c->reason == REASON_TLS;
		hang_up(c);
		assert_int_equal(c->closed, 1);
		forget(c);
	}
	assert_true(refused > 0 && refused < n);
}

/* A stream that hands out and takes as much as it likes, and then nothing for a while. */
static void moods(struct client *c)
{
	c->memory.read_max = at_random(2) ? 0 : 1 + at_random(100);
	c->memory.write_max = at_random(2) ? 0 : 1 + at_random(100);
	c->memory.window_bytes = at_random(3) ? SIZE_MAX : c->memory.outward.bytes + at_random(50);
}

static void all_arrives_in_order_whatever_the_stream_takes(void **state)
{
	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct tls_client *client = new_client(at_random(2) ? 0x0303 : 0x0304);
		struct client *c = join();
		static char said[WIRE_BYTES], wanted[WIRE_BYTES];
		size_t got = 0, want = 0;
		c->echo = true;
		for (int i = 0; i < LINES; i++) {
			char text[512];
			size_t n = 1 + at_random(sizeof text - 1);
			memset(text, 'a' + i % 26, n);
			text[n - 1] = '\n';
			assert_true(n == 1 || tls_client_send(client, text, n));
			memcpy(wanted + want, text, n == 1 ? 0 : n);
			want += n == 1 ? 0 : n;
			moods(c);
			exchange(c, client);
			got += tls_client_read(client, said + got, sizeof said - got);
		}
		c->memory.window_bytes = SIZE_MAX;
		for (int i = 0; i < 50 && got < want; i++) {
			exchange(c, client);
			got += tls_client_read(client, said + got, sizeof said - got);
		}
		assert_int_equal(got, want);
		assert_memory_equal(said, wanted, want);
		tls_client_end(client);
		exchange(c, client);
		hang_up(c);
		expect_end(c, REASON_PEER);
		tls_client_free(client);
		forget(c);
	}
}

static unsigned announced; /* writes that more is to follow at once */

static ssize_t write_announced(struct stream *stream, const void *from, size_t n)
{
	announced++;
	return stream->ops->write(stream, from, n);
}

/* As packets of their own, a record of a few bytes behind another would cost as much as that. */
static void records_of_one_output_go_together(void **state)
{
	(void)state;
	for (int version = 0x0303; version <= 0x0304; version++) {
		static char text[40000], said[sizeof text];
		struct tls_client *client = new_client(version);
		struct client *c = join();
		const struct stream_ops *ops = c->memory.stream.ops;
		struct stream_ops announcing = *ops;
		exchange(c, client);
		announcing.write_more = write_announced;
		c->memory.stream.ops = &announcing;
		size_t sizes[] = { 100, 16384, 16400, sizeof text };
		for (unsigned records = 1, i = 0; i < 4; i++) {
			size_t got = 0, more;
			unsigned before = c->memory.writes;
			bool below;
			announced = 0;
			memset(text, 'a' + (int)i, sizes[i]);
			assert_int_equal(channel_send(channel_of(c), text, sizes[i] - 1, &below), 0);
			exchange(c, client);
			while ((more = tls_client_read(client, said + got, sizeof said - got)))
				got += more;
			assert_int_equal(got, sizes[i]);
			assert_memory_equal(said, text, got - 1);
			records += i > 1;
			assert_int_equal(c->memory.writes - before, records);
			assert_int_equal(announced, records - 1);
		}
		announced = 0;
		tls_client_end(client);
		exchange(c, client);
		assert_int_equal(announced, 1); /* the close_notify, and then the end of the stream */
		assert_true(c->memory.our_shut);
		c->memory.stream.ops = ops;
		hang_up(c);
		expect_end(c, REASON_PEER);
		tls_client_free(client);
		forget(c);
	}
}

/* Over a socket no event tells of an end that came together with bytes. */
static void an_end_behind_bytes_is_met_without_an_event(void **state)
{
	(void)state;
	for (int version = 0x0303; version <= 0x0304; version++) {
		struct tls_client *client = new_client(version);
		char wire[WIRE_BYTES];
		uv_loop_t loop;
		struct poller poller;
		int fds[2];
		assert_int_equal(uv_loop_init(&loop), 0);
		assert_int_equal(poller_init(&poller, &loop), 0);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
		struct client *c = world_join_socket(0, &poller, fds[0], false, at_random);
		for (int i = 0; i < 6; i++) {
			size_t n = tls_client_take(client, wire, sizeof wire);
			assert_int_equal(write(fds[1], wire, n), n);
			serve_polled(&poller, 0);
			ssize_t got = read(fds[1], wire, sizeof wire);
			assert_true(tls_client_put(client, wire, got > 0 ? (size_t)got : 0));
		}
		assert_int_equal(c->opened, 1);
		assert_true(tls_client_send(client, "one\n", 4));
		tls_client_end(client);
		size_t n = tls_client_take(client, wire, sizeof wire);
		assert_int_equal(write(fds[1], wire, n), n);
		for (int i = 0; i < 10 && !c->closed; i++)
			serve_polled(&poller, 0);
		assert_string_equal(c->seen, "one|EOF|");
		assert_int_equal(c->closed, 1);
		assert_int_equal(c->reason, REASON_PEER);
		close(fds[1]);
		while (!c->gone)
			serve_polled(&poller, -1);
		forget(c);
		tls_client_free(client);
		poller_deinit(&poller);
		uv_loop_close(&loop);
	}
}

/* Records that nobody has made. */
static void broken_records_end_it(void **state)
{
	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct tls_client *client = new_client(at_random(2) ? 0x0303 : 0x0304);
		struct client *c = join();
		uint8_t wire[WIRE_BYTES];
		exchange(c, client);
		assert_true(tls_client_send(client, "one\n", 4));
		size_t n = tls_client_take(client, wire, sizeof wire);
		wire[at_random((uint32_t)n)] ^= (uint8_t)(1 + at_random(255));
		world_put(c, wire, n);
		world_run();
		hang_up(c);
		assert_int_equal(c->closed, 1);
		assert_true(c->reason == REASON_TLS || c->reason == REASON_RESET);
		assert_non_null(c->failure);
		assert_string_equal(c->seen, "");
		tls_client_free(client);
		forget(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_TLS(an_agent_begins_when_it_has_opened),
		WITH_TLS(a_session_goes_on_again_and_again),
		WITH_TLS(an_end_without_a_word_is_a_reset),
		WITH_TLS(a_record_in_pieces_is_served_before_a_reset),
		WITH_TLS(a_record_in_pieces_is_served_before_a_time_out),
		WITH_TLS(a_record_in_pieces_is_served_before_a_drain_closes),
		WITH_TLS(a_handshake_that_is_cut_ends_at_once),
		WITH_TLS(one_that_is_begun_has_its_time),
		WITH_TLS(whatever_it_begins_with_it_opens_or_ends),
		WITH_TLS(all_arrives_in_order_whatever_the_stream_takes),
		WITH_TLS(records_of_one_output_go_together),
		WITH_TLS(an_end_behind_bytes_is_met_without_an_event),
		WITH_TLS(broken_records_end_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
