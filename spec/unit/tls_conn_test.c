/* A connection that is the client of its TLS: it speaks first, and its handler hears of it once both have met. */
#include "conn_steps.h"

#include "tls/stream.h"
#include "tls_steps.h"

#include <string.h>

enum { WIRE_BYTES = 65536, ROUNDS = 8 };

static int conn_out_begin(void **state)
{
	conns_begin(state);
	outgoing_begin(state);
	make_server();
	return 0;
}

static int conn_out_end(void **state)
{
	int err = conns_end(state);
	return outgoing_end(state) || err;
}

#define CONN_OUT(TEST) cmocka_unit_test_setup_teardown(TEST, conn_out_begin, conn_out_end)

static struct client *connect_out(void)
{
	make_client();
	world_top = (struct layer){ &TLS_STREAM, client };
	ends_begin(&ends, client, server);
	return join();
}

/* What they have to say to each other; the connection goes by nothing but its events. */
static void talk(struct client *c)
{
	char wire[WIRE_BYTES];
	for (int i = 0; i < ROUNDS; i++) {
		world_run();
		memory_stream_put(&ends.server.memory, wire,
				  memory_stream_take(&c->memory, wire, sizeof wire));
		end_step(&ends.server);
		world_put(c, wire, memory_stream_take(&ends.server.memory, wire, sizeof wire));
	}
}

static void it_opens_by_its_events_and_is_served(void **state)
{
	(void)state;
	char heard[16];
	struct client *c = connect_out();
	assert_int_equal(c->opened, 0);
	talk(c);
	assert_int_equal(c->opened, 1);
	assert_true(ends.server.has_opened);
	c->echo = true;
	assert_int_equal(stream_write(&ends.server.user, "hello\n", 6), 6);
	talk(c);
	assert_string_equal(c->seen, "hello|");
	assert_int_equal(end_read(&ends.server, heard, sizeof heard), 6);
	assert_memory_equal(heard, "hello\n", 6);
	assert_int_equal(stream_shutdown(&ends.server.user), 0);
	talk(c);
	hang_up(c);
	expect_end(c, REASON_PEER);
	ends_free(&ends);
}

static void it_is_told_why_it_does_not_open(void **state)
{
	(void)state;
	ask_for("other.example");
	struct client *c = connect_out();
	talk(c);
	hang_up(c);
	expect_end(c, REASON_TLS);
	assert_int_equal(c->opened, 0);
	assert_string_equal(c->failure, "the server's certificate is not for other.example");
	ends_free(&ends);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONN_OUT(it_opens_by_its_events_and_is_served),
		CONN_OUT(it_is_told_why_it_does_not_open),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
