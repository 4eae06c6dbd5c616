#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_dns.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 12, TYPE_ALIAS = 5, CLASS_IN = 1, TRUNCATED = 2 };

uv_loop_t loop;
struct poller poller;

static int descriptors_before;
static char folder[] = "/tmp/dns-unit-XXXXXX";

/* ---- the loop ---- */

int count_descriptors(void)
{
	int count = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

void turn(void)
{
	poller_wait(&poller, -1);
	poller_serve(&poller);
	poller_run_loop(&poller);
	poller_forget(&poller);
}

int begin_polling(void **state)
{
	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0); /* the first of a process opens what stays open */
	assert_int_equal(uv_loop_close(&loop), 0);
	descriptors_before = count_descriptors();
	strcpy(folder + strlen(folder) - 6, "XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(poller_init(&poller, &loop), 0);
	return 0;
}

static void remove_folder(void)
{
	static const char *const NAMES[] = { "hosts", "resolv.conf", "socket" };
	char path[128];
	for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, NAMES[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(folder), 0);
}

int end_polling(void **state)
{
	(void)state;
	uv_run(&loop, UV_RUN_DEFAULT);
	do { /* the server's sockets notice that their clients have gone */
		poller_wait(&poller, 0);
		poller_serve(&poller);
		poller_run_loop(&poller);
		poller_forget(&poller);
	} while (poller.count > 0 || poller.ready);
	poller_deinit(&poller);
	assert_int_equal(uv_loop_close(&loop), 0);
	remove_folder();
	assert_int_equal(count_descriptors(), descriptors_before);
	return 0;
}

const char *write_file(const char *name, const char *text)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4], fresh[160];
	snprintf(path, sizeof paths[0], "%s/%s", folder, name);
	snprintf(fresh, sizeof fresh, "%s.new", path);
	FILE *file = fopen(fresh, "w");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(rename(fresh, path), 0);
	return path;
}

/* ---- messages ---- */

struct message {
	uint8_t bytes[FAKE_MESSAGE_MAX];
	size_t count;
};

static void put16(struct message *message, unsigned value)
{
	message->bytes[message->count++] = (uint8_t)(value >> 8);
	message->bytes[message->count++] = (uint8_t)value;
}

static void put_name(struct message *message, const char *name)
{
	while (*name) {
		size_t n = strcspn(name, ".");
		message->bytes[message->count++] = (uint8_t)n;
		memcpy(message->bytes + message->count, name, n);
		message->count += n;
		name += n + (name[n] == '.');
	}
	message->bytes[message->count++] = 0;
}

/* Up to its data; their length follows. */
static void put_record(struct message *message, const char *owner, unsigned type, uint32_t ttl_s)
{
	put_name(message, owner);
	put16(message, type);
	put16(message, CLASS_IN);
	put16(message, ttl_s >> 16);
	put16(message, ttl_s & 0xffff);
	message->bytes[7]++; /* answers: no test has more than 255 */
}

static void put_alias(struct message *message, const char *owner, const char *alias, uint32_t ttl_s)
{
	put_record(message, owner, TYPE_ALIAS, ttl_s);
	size_t length_at = message->count;
	put16(message, 0);
	put_name(message, alias);
	message->bytes[length_at + 1] = (uint8_t)(message->count - length_at - 2);
}

static void put_address(struct message *message, const char *owner, const char *text, uint32_t ttl_s)
{
	union address address;
	assert_true(address_read(text, &address));
	bool is_ipv4 = address.any.sa_family == AF_INET;
	size_t n = is_ipv4 ? 4 : 16;
	put_record(message, owner, is_ipv4 ? FAKE_A : FAKE_AAAA, ttl_s);
	put16(message, (unsigned)n);
	memcpy(message->bytes + message->count,
	       is_ipv4 ? (void *)&address.in.sin_addr : (void *)&address.in6.sin6_addr, n);
	message->count += n;
}

static void put_answers(struct message *message, const char *name, const struct fake_record *record)
{
	char aliases[256], addresses[2048], owner[256], *rest;
	snprintf(owner, sizeof owner, "%s", name);
	snprintf(aliases, sizeof aliases, "%s", record->aliases ? record->aliases : "");
	for (char *each = strtok_r(aliases, " ", &rest); each; each = strtok_r(NULL, " ", &rest)) {
		put_alias(message, owner, each, record->ttl_s);
		snprintf(owner, sizeof owner, "%s", each);
	}
	snprintf(addresses, sizeof addresses, "%s", record->addresses ? record->addresses : "");
	for (char *each = strtok_r(addresses, " ", &rest); each; each = strtok_r(NULL, " ", &rest))
		put_address(message, owner, each, record->ttl_s);
}

/* The name that is asked for, and its type; returns the bytes up to the end of the question. */
static size_t read_question(const uint8_t *query, size_t n, char name[256], int *type)
{
	size_t at = HEADER_BYTES, used = 0;
	while (at < n && query[at]) {
		assert_true(at + query[at] < n);
		memcpy(name + used, query + at + 1, query[at]);
		used += query[at];
		name[used++] = '.';
		at += query[at] + 1u;
	}
	name[used ? used - 1 : 0] = '\0';
	assert_true(at + 5 <= n);
	*type = query[at + 1] << 8 | query[at + 2];
	return at + 5;
}

static struct fake_record *find_record(struct fake_dns *dns, const char *name, int type, bool *has_name)
{
	*has_name = false;
	for (struct fake_record *each = dns->records; each && each->name; each++) {
		if (strcasecmp(each->name, name) != 0 && strcmp(each->name, "*") != 0)
			continue;
		*has_name = true;
		if (each->type == type)
			return each;
	}
	return NULL;
}

/* Nothing, or the answer to a query. */
static void answer_query(struct fake_dns *dns, const uint8_t *query, size_t n, bool is_tcp,
			 struct message *to)
{
	char name[256];
	int type;
	bool has_name;
	size_t question_bytes = read_question(query, n, name, &type);
	const struct fake_record *record = find_record(dns, name, type, &has_name);
	int rcode = record ? record->rcode : has_name ? 0 : 3;
	memset(to->bytes, 0, HEADER_BYTES);
	memcpy(to->bytes, query, question_bytes);
	to->count = question_bytes;
	to->bytes[2] = 0x81;
	to->bytes[3] = (uint8_t)(0x80 | rcode);
	memset(to->bytes + 6, 0, 6);
	if (!record)
		return;
	if (record->manner == FAKE_SHORTENS && !is_tcp) {
		to->bytes[2] |= TRUNCATED;
		return;
	}
	put_answers(to, name, record);
	if (record->manner == FAKE_BREAKS)
		to->count -= 3;
}

/* ---- UDP ---- */

struct udp {
	struct polled polled;
	struct fake_dns *dns;
};

static void send_to(struct fake_dns *dns, const struct sockaddr_in *peer, const void *bytes, size_t n)
{
	assert_int_equal(
	    sendto(dns->udp->fd, bytes, n, MSG_NOSIGNAL, (const struct sockaddr *)peer, sizeof *peer), n);
}

static void mislead(struct fake_dns *dns, const struct sockaddr_in *peer, const struct message *message)
{
	struct message other = *message;
	other.bytes[0] ^= 0xff;
	send_to(dns, peer, "", 0);
	send_to(dns, peer, "junk", 4);
	send_to(dns, peer, other.bytes, other.count);
}

static void answer_over_udp(struct fake_dns *dns, const struct sockaddr_in *peer, const uint8_t *query,
			    size_t n)
{
	struct message message;
	answer_query(dns, query, n, false, &message);
	send_to(dns, peer, message.bytes, message.count);
}

static void hold(struct fake_dns *dns, const struct sockaddr_in *peer, const uint8_t *query, size_t n,
		 int type)
{
	struct fake_held *held = &dns->held[dns->held_count++];
	assert_true(dns->held_count <= FAKE_HELD_MAX && n <= sizeof held->query);
	held->peer = *peer;
	held->bytes = n;
	held->type = type;
	memcpy(held->query, query, n);
}

static void serve_query(struct fake_dns *dns, const struct sockaddr_in *peer, const uint8_t *query, size_t n)
{
	char name[256];
	int type;
	bool has_name;
	struct message message;
	read_question(query, n, name, &type);
	struct fake_record *record = find_record(dns, name, type, &has_name);
	dns->asked++;
	if (record)
		record->asked++;
	if (record && record->manner == FAKE_SILENT)
		return;
	if (record && record->manner == FAKE_HOLDS) {
		hold(dns, peer, query, n, type);
		return;
	}
	if (record && record->manner == FAKE_MISLEADS) {
		answer_query(dns, query, n, false, &message);
		mislead(dns, peer, &message);
	}
	answer_over_udp(dns, peer, query, n);
}

static void on_udp(struct polled *polled, uint32_t events)
{
	struct fake_dns *dns = ((struct udp *)(void *)polled)->dns;
	uint8_t query[512];
	struct sockaddr_in peer;
	socklen_t bytes = sizeof peer;
	ssize_t n;
	(void)events;
	while ((n = recvfrom(polled->fd, query, sizeof query, 0, (struct sockaddr *)&peer, &bytes)) > 0)
		serve_query(dns, &peer, query, (size_t)n);
}

void fake_dns_release(struct fake_dns *dns, int type)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < dns->held_count; i++) {
		if (dns->held[i].type == type)
			answer_over_udp(dns, &dns->held[i].peer, dns->held[i].query, dns->held[i].bytes);
		else
			dns->held[kept++] = dns->held[i];
	}
	dns->held_count = kept;
	for (struct fake_record *each = dns->records; each->name; each++)
		if (each->type == type && each->manner == FAKE_HOLDS)
			each->manner = FAKE_ANSWERS;
}

/* ---- TCP ---- */

struct tcp {
	struct polled polled;
	struct fake_dns *dns;
	size_t bytes;
	uint8_t query[514];
};

static void free_polled(struct polled *polled)
{
	free(polled);
}

/* Unless its client has gone. */
static void send_piece(int fd, const void *bytes, size_t n)
{
	ssize_t put = send(fd, bytes, n, MSG_NOSIGNAL);
	assert_true(put < 0 || put == (ssize_t)n);
}

/* In pieces: c-ares has to put them together. */
static void answer_over_tcp(struct tcp *tcp)
{
	struct message message;
	answer_query(tcp->dns, tcp->query + 2, tcp->bytes - 2, true, &message);
	const uint8_t length[2] = { (uint8_t)(message.count >> 8), (uint8_t)message.count };
	tcp->dns->asked_over_tcp++;
	send_piece(tcp->polled.fd, length, 1);
	send_piece(tcp->polled.fd, length + 1, 1);
	send_piece(tcp->polled.fd, message.bytes, message.count);
	tcp->bytes = 0;
}

static void on_tcp(struct polled *polled, uint32_t events)
{
	struct tcp *tcp = (struct tcp *)(void *)polled;
	ssize_t n;
	(void)events;
	while ((n = recv(polled->fd, tcp->query + tcp->bytes, sizeof tcp->query - tcp->bytes, 0)) > 0) {
		tcp->bytes += (size_t)n;
		if (tcp->bytes > 2 && tcp->bytes >= 2u + (size_t)(tcp->query[0] << 8 | tcp->query[1]))
			answer_over_tcp(tcp);
	}
	if (!n || errno != EAGAIN) /* or a reset: it has not read all that it was sent */
		poller_close(polled);
}

static const struct polled_ops TCP = { .ready = on_tcp, .closed = free_polled };

static void on_tcp_client(struct polled *polled, uint32_t events)
{
	int fd;
	(void)events;
	while ((fd = accept4(polled->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct tcp *tcp = calloc(1, sizeof *tcp);
		tcp->dns = ((struct udp *)(void *)polled)->dns;
		polled_init(&tcp->polled, &poller, fd, &TCP);
		assert_int_equal(poller_watch(&tcp->polled, EPOLLIN), 0);
	}
}

/* ---- the server ---- */

static const struct polled_ops UDP = { .ready = on_udp, .closed = free_polled };
static const struct polled_ops TCP_LISTENER = { .ready = on_tcp_client, .closed = free_polled };

static struct polled *watch(struct fake_dns *dns, int fd, const struct polled_ops *ops)
{
	struct udp *udp = calloc(1, sizeof *udp);
	udp->dns = dns;
	polled_init(&udp->polled, &poller, fd, ops);
	assert_int_equal(poller_watch(&udp->polled, EPOLLIN), 0);
	return &udp->polled;
}

/* Both on one port, or -1: somebody else has it. */
static int bind_both(union address *address, int *tcp)
{
	socklen_t bytes = sizeof *address;
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(udp, &address->any, address_bytes(address)), 0);
	assert_int_equal(getsockname(udp, &address->any, &bytes), 0);
	*tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (!bind(*tcp, &address->any, address_bytes(address)) && !listen(*tcp, 16))
		return udp;
	close(*tcp);
	close(udp);
	return -1;
}

void fake_dns_open(struct fake_dns *dns, const char *host, uint16_t port, struct fake_record *records)
{
	union address address;
	int udp, tcp;
	*dns = (struct fake_dns){ .records = records };
	do {
		assert_true(address_read(host, &address));
		address_set_port(&address, port);
		udp = bind_both(&address, &tcp);
	} while (udp < 0);
	dns->port = ntohs(address.in.sin_port);
	dns->udp = watch(dns, udp, &UDP);
	dns->tcp = watch(dns, tcp, &TCP_LISTENER);
}

void fake_dns_close(struct fake_dns *dns)
{
	poller_close(dns->udp);
	poller_close(dns->tcp);
}

const char *fake_dns_server(const struct fake_dns *dns)
{
	static char text[64];
	snprintf(text, sizeof text, "127.0.0.1:%u", dns->port);
	return text;
}
