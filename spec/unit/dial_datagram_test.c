/* UDP sockets that are connected to one peer; connections are in dial_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_dns.h"
#include "net/dial.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct dialer dialer;
static struct resolver_settings settings;

static struct {
	unsigned times;
	int fd, err;
	char why[700], peer[ADDRESS_TEXT_BYTES];
} outcome;

static void on_outcome(void *data, int fd, int err, const char *why)
{
	union address peer;
	socklen_t bytes = sizeof peer;
	(void)data;
	outcome.times++;
	outcome.fd = fd;
	outcome.err = err;
	snprintf(outcome.why, sizeof outcome.why, "%s", why ? why : "");
	if (fd >= 0 && !getpeername(fd, &peer.any, &bytes))
		address_text(&peer.any, outcome.peer, sizeof outcome.peer);
}

static int begin_test(void **state)
{
	begin_polling(state);
	settings = (struct resolver_settings){ .dns.servers = "127.0.0.1:1" }; /* nobody there */
	settings.hosts_path =
	    write_file("hosts", "255.255.255.255 name.test\n127.0.0.1 name.test\n127.0.0.2 name.test\n");
	dialer_init(&dialer, &poller, &settings);
	return 0;
}

static int end_test(void **state)
{
	dialer_deinit(&dialer);
	return end_polling(state);
}

/* Until it has come to something. */
static void dial(const char *host, uint16_t port, const struct sockaddr_storage *from)
{
	const struct dial_target target = { .is_datagram = true, .host = host, .port = port, .from = from };
	memset(&outcome, 0, sizeof outcome);
	outcome.fd = -1;
	assert_non_null(dial_begin(&dialer, &target, on_outcome, NULL));
	assert_int_equal(outcome.times, 0);
	UNTIL(outcome.times);
	assert_int_equal(dialer.count, 0);
}

static int bound(struct sockaddr_in *address)
{
	socklen_t bytes = sizeof *address;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, &bytes), 0);
	return fd;
}

/* Connected to that port of 127.0.0.1, by a UDP socket. */
static void expect_connected(uint16_t port)
{
	char text[ADDRESS_TEXT_BYTES];
	int type = 0;
	socklen_t bytes = sizeof type;
	snprintf(text, sizeof text, "127.0.0.1:%u", port);
	assert_int_equal(outcome.err, 0);
	assert_string_equal(outcome.peer, text);
	assert_int_equal(getsockopt(outcome.fd, SOL_SOCKET, SO_TYPE, &type, &bytes), 0);
	assert_int_equal(type, SOCK_DGRAM);
}

static void is_connected_whether_somebody_is_there_or_not(void **state)
{
	struct sockaddr_in address;
	char text[8];
	int fd = bound(&address);
	uint16_t port = ntohs(address.sin_port);
	(void)state;
	dial("127.0.0.1", port, NULL);
	expect_connected(port);
	assert_int_equal(send(outcome.fd, "hello", 5, 0), 5);
	assert_int_equal(recv(fd, text, sizeof text, 0), 5);
	close(outcome.fd);
	close(fd);
	dial("127.0.0.1", port, NULL);
	expect_connected(port);
	close(outcome.fd);
}

/* A broadcast address is refused by connect(), as one that no way leads to is. */
static void goes_to_the_first_address_that_can_be_reached(void **state)
{
	(void)state;
	dial("name.test", 9, NULL);
	expect_connected(9);
	close(outcome.fd);
	dial("255.255.255.255", 9, NULL);
	assert_int_equal(outcome.err, UV_EACCES);
	assert_string_equal(outcome.why, "255.255.255.255:9: permission denied");
}

static void has_a_port_of_its_own_at_the_local_address(void **state)
{
	struct sockaddr_storage from = { 0 };
	struct sockaddr_in ours[2];
	int fds[2];
	union address local;
	(void)state;
	assert_true(address_read("127.0.0.5", &local));
	memcpy(&from, &local, sizeof local);
	for (int i = 0; i < 2; i++) {
		socklen_t bytes = sizeof ours[i];
		dial("127.0.0.1", 9, &from);
		expect_connected(9);
		fds[i] = outcome.fd;
		assert_int_equal(getsockname(fds[i], (struct sockaddr *)&ours[i], &bytes), 0);
		assert_int_equal(ntohl(ours[i].sin_addr.s_addr), 0x7f000005);
	}
	assert_int_not_equal(ours[0].sin_port, ours[1].sin_port);
	close(fds[0]);
	close(fds[1]);
}

#define WITH_DIALER(TEST) cmocka_unit_test_setup_teardown(TEST, begin_test, end_test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DIALER(is_connected_whether_somebody_is_there_or_not),
		WITH_DIALER(goes_to_the_first_address_that_can_be_reached),
		WITH_DIALER(has_a_port_of_its_own_at_the_local_address),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
