/*
 * Questions to DNS servers: c-ares on a poller.
 *
 * A struct dns is one reading of resolv.conf(5): c-ares reads that file once. Its sockets are the poller's. Its
 * time-outs are its owner's, who calls dns_expire() when dns_timeout_ms() are over.
 *
 * Threads: the poller's.
 */
#pragma once

#include "net/address.h"
#include "net/poller.h"

struct dns;

/* Read by dns_open() only. */
struct dns_settings {
	const char *servers;     /* "127.0.0.1:5353,[::1]:5353"; NULL: those of resolv.conf */
	const char *resolv_path; /* NULL: /etc/resolv.conf */
	uint16_t port;           /* of the servers in resolv.conf; 0: 53 */
	int timeout_ms; /* of the first try, later ones wait longer; 0: as resolv.conf or c-ares has it */
	int tries;      /* of each server; 0: the same */
};

/* Embedded in whatever asks. It must stay until it is answered. */
struct dns_question {
	struct dns *dns;
	int family;

	/*
	 * Once, and even within dns_ask(). It must not call dns_ask(), dns_expire() or dns_close(). An error is
	 * UV_EAI_NONAME, UV_EAI_NODATA, UV_EAI_AGAIN (no server gives an answer), UV_ETIMEDOUT, UV_ENOMEM, UV_EINVAL (no name) or
	 * UV_ECANCELED (by dns_close()).
	 */
	void (*answered)(struct dns_question *question, int err, const struct addresses *addresses,
			 uint32_t ttl_s);
};

/* 0 or an error. */
int dns_open(struct dns **dns, struct poller *poller, const struct dns_settings *settings);

/* What is under way is answered by UV_ECANCELED. Its sockets' memory is freed by poller_forget(). */
void dns_close(struct dns *dns);

/* AF_INET asks for A, AF_INET6 for AAAA. `question` is zeroed but for answered(). */
void dns_ask(struct dns *dns, const char *name, int family, struct dns_question *question);

/* How many wait for an answer. */
unsigned dns_pending(const struct dns *dns);

/* Until the next question times out; -1: there is none. */
int dns_timeout_ms(struct dns *dns);

/* Repeats or ends the questions that have timed out. */
void dns_expire(struct dns *dns);
