/* UDP in many datagrams a system call, over real sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/address.h"
#include "net/datagrams.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BYTES = 100 };

static struct datagrams_in *in;
static struct datagrams_out *out;
static int ours, theirs; /* IPv4, bound to the loopback */
static struct sockaddr_in our_address, their_address;
static struct sockaddr_in6 them; /* as peers are kept */

static int bound(int family, const char *host, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
	socklen_t bytes = family == AF_INET ? sizeof *v4 : sizeof *v6;
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memset(address, 0, sizeof *address);
	address->ss_family = (sa_family_t)family;
	assert_int_equal(
	    inet_pton(family, host, family == AF_INET ? (void *)&v4->sin_addr : (void *)&v6->sin6_addr), 1);
	assert_int_equal(bind(fd, (struct sockaddr *)address, bytes), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, &bytes), 0);
	return fd;
}

static int begin_test(void **state)
{
	struct sockaddr_storage address;
	(void)state;
	in = datagrams_in_new();
	out = malloc(sizeof *out);
	datagrams_out_init(out);
	ours = bound(AF_INET, "127.0.0.1", &address);
	memcpy(&our_address, &address, sizeof our_address);
	theirs = bound(AF_INET, "127.0.0.1", &address);
	memcpy(&their_address, &address, sizeof their_address);
	them = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = their_address.sin_port };
	them.sin6_addr.s6_addr[10] = them.sin6_addr.s6_addr[11] = 0xff;
	memcpy(&them.sin6_addr.s6_addr[12], &their_address.sin_addr, 4);
	return 0;
}

static int end_test(void **state)
{
	(void)state;
	close(ours);
	close(theirs);
	datagrams_in_free(in);
	free(out);
	return 0;
}

#define WITH_SOCKETS(TEST) cmocka_unit_test_setup_teardown(TEST, begin_test, end_test)

/* From ours to them. */
static bool put(const void *whose, const char *bytes, size_t len)
{
	const struct datagrams_way way = { .fd = ours, .whose = whose, .peer = &them, .local = &in6addr_any };
	return datagrams_put(out, &way, (const uint8_t *)bytes, len);
}

static void expect(int fd, const char *bytes, size_t len)
{
	static char got[DATAGRAMS_SLOT_BYTES];
	assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), len);
	assert_memory_equal(got, bytes, len);
}

static void expect_nothing(int fd)
{
	char got[1];
	assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static void send_to_us(int fd, const void *bytes, size_t len)
{
	assert_int_equal(sendto(fd, bytes, len, 0, (const struct sockaddr *)&our_address, sizeof our_address),
			 len);
}

static void receives_what_has_come_with_its_sender(void **state)
{
	(void)state;
	assert_int_equal(datagrams_receive(in, ours, DATAGRAMS_MAX), 0);
	send_to_us(theirs, "one", 3);
	send_to_us(theirs, "", 0);
	send_to_us(ours, "ours", 4);
	assert_int_equal(datagrams_receive(in, ours, DATAGRAMS_MAX), 3);
	static const char *const TEXTS[] = { "one", "", "ours" };
	for (int i = 0; i < 3; i++) {
		const struct datagrams_message *message = &in->messages[i];
		assert_int_equal(message->len, strlen(TEXTS[i]));
		assert_memory_equal(message->bytes, TEXTS[i], message->len);
		assert_int_equal(datagrams_count(message), 1);
		assert_false(message->is_cut);
		assert_memory_equal(&message->peer.sin6_addr, &them.sin6_addr, sizeof them.sin6_addr);
	}
	assert_int_equal(in->messages[0].peer.sin6_port, their_address.sin_port);
	assert_int_equal(in->messages[2].peer.sin6_port, our_address.sin_port);
	assert_int_equal(datagrams_receive(in, ours, DATAGRAMS_MAX), 0);
}

/* Behind each other, of one sender and one size: one message. The last may be shorter. */
static void sends_datagrams_of_a_size_together(void **state)
{
	char bytes[BYTES];
	(void)state;
	memset(bytes, 'x', sizeof bytes);
	for (int i = 0; i < 10; i++)
		assert_true(put("a", bytes, BYTES));
	assert_true(put("a", "short", 5));
	assert_int_equal(out->count, 1);
	assert_true(put("a", bytes, BYTES)); /* behind a shorter one it is another */
	assert_true(put("b", bytes, BYTES)); /* of somebody else */
	assert_true(put("b", "", 0));        /* a datagram of no bytes stands alone */
	assert_true(put("b", "", 0));
	assert_int_equal(out->count, 5);
	assert_int_equal(datagrams_flush(out), 0);
	assert_false(datagrams_are_waiting(out));
	for (int i = 0; i < 10; i++)
		expect(theirs, bytes, BYTES);
	expect(theirs, "short", 5);
	expect(theirs, bytes, BYTES);
	expect(theirs, bytes, BYTES);
	expect(theirs, "", 0);
	expect(theirs, "", 0);
	expect_nothing(theirs);
	assert_int_equal(out->unsent, 0);
}

static void takes_apart_what_comes_together(void **state)
{
	char bytes[BYTES];
	(void)state;
	datagrams_prepare(theirs, false, false);
	memset(bytes, 'x', sizeof bytes);
	for (int i = 0; i < 10; i++)
		assert_true(put("a", bytes, BYTES));
	assert_true(put("a", "short", 5));
	assert_int_equal(datagrams_flush(out), 0);
	int n = datagrams_receive(in, theirs, DATAGRAMS_MAX);
	uint32_t datagrams = 0, all = 0;
	for (int i = 0; i < n; i++) {
		datagrams += datagrams_count(&in->messages[i]);
		all += in->messages[i].len;
	}
	assert_int_equal(datagrams, 11);
	assert_int_equal(all, 10 * BYTES + 5);
}

static void one_that_is_refused_holds_nobody_up(void **state)
{
	static char large[DATAGRAM_BYTES_MAX + 1];
	struct sockaddr_in6 nowhere = them;
	(void)state;
	nowhere.sin6_port = 0;
	const struct datagrams_way way = {
		.fd = ours, .whose = "n", .peer = &nowhere, .local = &in6addr_any
	};
	assert_true(put("a", "one", 3));
	for (int i = 0; i < 3; i++)
		assert_true(datagrams_put(out, &way, (const uint8_t *)"lost", 4));
	assert_true(put("a", large, sizeof large)); /* larger than any datagram */
	assert_true(put("a", "two", 3));
	assert_int_equal(datagrams_flush(out), 0);
	assert_int_equal(out->unsent, 4);
	expect(theirs, "one", 3);
	expect(theirs, "two", 3);
	expect_nothing(theirs);
}

/* Its memory may be somebody else's by now. */
static void a_sender_that_has_gone_is_nobody_elses(void **state)
{
	const struct in6_addr other = { .s6_addr = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 } };
	const struct datagrams_way way = { .fd = ours, .whose = "a", .peer = &them, .local = &other };
	(void)state;
	assert_true(put("a", "one", 3));
	datagrams_seal(out);
	assert_true(put("a", "two", 3));
	assert_int_equal(out->count, 2);
	/* Nor does what is to leave from another address go with it. */
	assert_true(datagrams_put(out, &way, (const uint8_t *)"six", 3));
	assert_int_equal(out->count, 3);
	assert_int_equal(datagrams_flush(out), 0);
	expect(theirs, "one", 3);
	expect(theirs, "two", 3);
	expect(theirs, "six", 3);
}

static void a_peer_that_was_away_hears_what_comes_then(void **state)
{
	struct sockaddr_storage address;
	(void)state;
	const struct datagrams_way way = { .fd = ours, .whose = "a", .local = &in6addr_any };
	assert_int_equal(connect(ours, (struct sockaddr *)&their_address, sizeof their_address), 0);
	close(theirs);
	assert_true(datagrams_put(out, &way, (const uint8_t *)"lost", 4));
	assert_int_equal(datagrams_flush(out), 0); /* its error comes with what is sent next */
	theirs = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(&address, &their_address, sizeof their_address);
	assert_int_equal(bind(theirs, (struct sockaddr *)&address, sizeof their_address), 0);
	assert_true(datagrams_put(out, &way, (const uint8_t *)"heard", 5));
	assert_int_equal(datagrams_flush(out), 0);
	expect(theirs, "heard", 5);
	assert_int_equal(out->unsent, 0);
}

static void has_room_for_so_many(void **state)
{
	static char large[60000];
	static int senders[DATAGRAMS_MAX + 1];
	(void)state;
	for (int i = 0; i < DATAGRAMS_MAX; i++)
		assert_true(put(&senders[i], "x", 1));
	assert_false(put(&senders[DATAGRAMS_MAX], "x", 1));
	assert_int_equal(datagrams_flush(out), 0);
	assert_true(put("a", large, sizeof large));
	assert_true(put("b", large, sizeof large));
	assert_false(put("c", large, sizeof large));
	datagrams_drop(out);
	assert_int_equal(out->unsent, 2);
	for (int i = 0; i < DATAGRAMS_MAX; i++)
		expect(theirs, "x", 1);
	expect_nothing(theirs);
}

/* What waits for one socket is sent before another has its turn. */
static void serves_one_socket_after_the_other(void **state)
{
	struct sockaddr_in6 us = them;
	(void)state;
	us.sin6_port = our_address.sin_port;
	const struct datagrams_way back = { .fd = theirs, .whose = "b", .peer = &us, .local = &in6addr_any };
	assert_true(put("a", "one", 3));
	assert_false(datagrams_put(out, &back, (const uint8_t *)"two", 3));
	assert_int_equal(datagrams_flush(out), 0);
	assert_true(datagrams_put(out, &back, (const uint8_t *)"two", 3));
	assert_int_equal(datagrams_flush(out), 0);
	expect(theirs, "one", 3);
	expect(ours, "two", 3);
}

/* Of a socket that is bound to all addresses. */
static void answers_from_the_address_that_was_asked(void **state)
{
	static const int FAMILIES[] = { AF_INET, AF_INET6 };
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct sockaddr_storage any;
		struct sockaddr_in to = { .sin_family = AF_INET }, from;
		socklen_t bytes = sizeof from;
		char got[8];
		bool is_ipv6 = FAMILIES[i] == AF_INET6;
		int fd = bound(FAMILIES[i], is_ipv6 ? "::" : "0.0.0.0", &any);
		datagrams_prepare(fd, is_ipv6, true);
		to.sin_port = is_ipv6 ? ((struct sockaddr_in6 *)&any)->sin6_port
				      : ((struct sockaddr_in *)&any)->sin_port;
		assert_int_equal(inet_pton(AF_INET, "127.0.0.2", &to.sin_addr), 1);
		assert_int_equal(sendto(theirs, "x", 1, 0, (struct sockaddr *)&to, sizeof to), 1);
		assert_int_equal(datagrams_receive(in, fd, DATAGRAMS_MAX), 1);
		const struct datagrams_message *message = &in->messages[0];
		assert_memory_equal(&message->local.s6_addr[12], &to.sin_addr, 4);
		assert_memory_equal(&message->peer.sin6_addr, &them.sin6_addr, sizeof them.sin6_addr);
		const struct datagrams_way way = { fd, is_ipv6, "a", &message->peer, &message->local };
		assert_true(datagrams_put(out, &way, (const uint8_t *)"y", 1));
		assert_int_equal(datagrams_flush(out), 0);
		assert_int_equal(out->unsent, 0);
		assert_int_equal(
		    recvfrom(theirs, got, sizeof got, MSG_DONTWAIT, (struct sockaddr *)&from, &bytes), 1);
		assert_int_equal(from.sin_addr.s_addr, to.sin_addr.s_addr);
		close(fd);
		out->fd = -1;
	}
}

static void counts_what_the_system_had_no_room_for(void **state)
{
	enum { SENT = 1000 };
	static char bytes[1000];
	uint32_t came = 0;
	int least = 1, n;
	(void)state;
	datagrams_prepare(ours, false, false);
	setsockopt(ours, SOL_SOCKET, SO_RCVBUF, &least,
		   sizeof least); /* and then the kernel has its minimum */
	for (int i = 0; i < SENT; i++)
		send_to_us(theirs, bytes, sizeof bytes);
	while ((n = datagrams_receive(in, ours, DATAGRAMS_MAX)) > 0)
		came += (uint32_t)n;
	send_to_us(theirs, "the next one tells", 18);
	assert_int_equal(datagrams_receive(in, ours, DATAGRAMS_MAX), 1);
	assert_true(came < SENT);
	assert_int_equal(in->lost, SENT - came);
}

/* Of a socket that has sent to the loopback address. */
static unsigned place_of(int fd, unsigned n)
{
	struct sockaddr_in own;
	struct sockaddr_in6 peer = { .sin6_family = AF_INET6 };
	socklen_t bytes = sizeof own;
	const struct in_addr loopback = { htonl(INADDR_LOOPBACK) };
	assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &bytes), 0);
	peer.sin6_port = own.sin_port;
	address_map_ipv4(&loopback, &peer.sin6_addr);
	return datagrams_place(&peer, n);
}

static void a_peer_keeps_its_socket_whoever_comes(void **state)
{
	enum { SOCKETS = 3, PEERS = 60, ROUNDS = 3 };
	int fds[SOCKETS + 1], peers[PEERS], where[PEERS], one = 1;
	struct sockaddr_storage address;
	unsigned spread[SOCKETS] = { 0 };
	(void)state;
	fds[0] = bound(AF_INET, "127.0.0.1", &address);
	assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_REUSEPORT, &one, sizeof one), 0);
	for (int i = 1; i <= SOCKETS; i++) {
		fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof one), 0);
	}
	for (int i = 1; i < SOCKETS; i++)
		assert_int_equal(bind(fds[i], (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(datagrams_steer(fds[0], SOCKETS), 0);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < PEERS; i++) {
			if (!round)
				peers[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
			assert_int_equal(sendto(peers[i], "x", 1, 0, (struct sockaddr *)&address,
						sizeof(struct sockaddr_in)),
					 1);
			int hit = -1;
			char got[1];
			for (int k = 0; k <= SOCKETS; k++)
				if (recv(fds[k], got, 1, MSG_DONTWAIT) == 1)
					hit = k;
			assert_in_range(hit, 0, SOCKETS - 1);
			spread[hit]++;
			if (!round)
				where[i] = (int)place_of(peers[i], SOCKETS);
			assert_int_equal(hit, where[i]);
		}
		if (!round) /* one more of that address, later */
			assert_int_equal(
			    bind(fds[SOCKETS], (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
	}
	for (int i = 0; i < SOCKETS; i++)
		assert_true(spread[i] > 0);
	for (int i = 0; i <= SOCKETS; i++)
		close(fds[i]);
	for (int i = 0; i < PEERS; i++)
		close(peers[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SOCKETS(receives_what_has_come_with_its_sender),
		WITH_SOCKETS(sends_datagrams_of_a_size_together),
		WITH_SOCKETS(takes_apart_what_comes_together),
		WITH_SOCKETS(one_that_is_refused_holds_nobody_up),
		WITH_SOCKETS(a_sender_that_has_gone_is_nobody_elses),
		WITH_SOCKETS(a_peer_that_was_away_hears_what_comes_then),
		WITH_SOCKETS(has_room_for_so_many),
		WITH_SOCKETS(serves_one_socket_after_the_other),
		WITH_SOCKETS(answers_from_the_address_that_was_asked),
		WITH_SOCKETS(counts_what_the_system_had_no_room_for),
		WITH_SOCKETS(a_peer_keeps_its_socket_whoever_comes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
