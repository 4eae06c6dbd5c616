/*
 * A DNS server in the test's own process, on loopback sockets of the poller under test, and that poller's loop.
 *
 * What happens is judged by who was asked and told, in which order: nothing here depends on how fast the machine is.
 */
#pragma once

#include "net/address.h"
#include "net/poller.h"

enum { FAKE_HELD_MAX = 16, FAKE_TCP_MAX = 16, FAKE_MESSAGE_MAX = 4096 };

enum fake_manner {
	FAKE_ANSWERS,
	FAKE_SILENT,
	FAKE_HOLDS,    /* until fake_dns_release() */
	FAKE_SHORTENS, /* over UDP: all is to be had over TCP */
	FAKE_BREAKS,   /* the answer ends in the middle */
	FAKE_MISLEADS, /* an answer to another question comes first, and datagrams that are no message */
};

enum { FAKE_A = 1, FAKE_AAAA = 28 };

/* A list of them ends with one that has no name. What is not in it does not exist. */
struct fake_record {
	const char *name; /* "*": any */
	int type;
	uint32_t ttl_s;
	const char *addresses; /* "127.0.0.1 127.0.0.2" */
	const char *aliases;   /* the name is one of the first, that of the second, …: "b.test c.test" */
	int rcode;
	enum fake_manner manner;
	unsigned asked; /* how often */
};

struct fake_held {
	struct sockaddr_in peer;
	size_t bytes;
	uint8_t query[512];
	int type;
};

struct fake_dns {
	struct polled *udp, *tcp;
	struct fake_record *records;
	uint16_t port;
	unsigned asked, asked_over_tcp; /* queries of all names */
	struct fake_held held[FAKE_HELD_MAX];
	unsigned held_count;
};

/* One of each test, by begin_polling(). */
extern uv_loop_t loop;
extern struct poller poller;

/* Around each test; the latter turns the loop until nothing is left, and fails where descriptors are. */
int begin_polling(void **state);
int end_polling(void **state);

/* One turn of the loop; waits for something to happen. */
void turn(void);

/* Turns the loop until CONDITION. */
#define UNTIL(CONDITION)     \
	while (!(CONDITION)) \
	turn()

/* How many are open. */
int count_descriptors(void);

/* Listens on `host`: on a port of its own (0), or on this one. */
void fake_dns_open(struct fake_dns *dns, const char *host, uint16_t port, struct fake_record *records);
void fake_dns_close(struct fake_dns *dns);

/* Answers the held questions of that type; FAKE_HOLDS is as FAKE_ANSWERS then. */
void fake_dns_release(struct fake_dns *dns, int type);

/* "127.0.0.1:PORT", static. */
const char *fake_dns_server(const struct fake_dns *dns);

/* A new file in a folder of the test's own: an inode that was not there before. The path stays for four more calls. */
const char *write_file(const char *name, const char *text);
