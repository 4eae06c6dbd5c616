/*
 * What the tests of src/conn/ have in common: the steps of a client over streams in memory, and what is to be true
 * after them. They fail as tests of cmocka do; the world around them is support/conn_world.h's.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/conn_world.h"

enum { TIMEOUT_MS = 1000 };

/* A line of a hundred bytes, its end among them. */
extern char hundred[];

/* Opens and closes the world; of each test. */
int conns_begin(void **state);
int conns_end(void **state);

#define WITH_CONNS(TEST) cmocka_unit_test_setup_teardown(TEST, conns_begin, conns_end)

struct conn *conn_of(struct client *client);
struct channel *channel_of(struct client *client);

/* In the first place that is free. */
struct client *join(void);

/* The clock goes on by so much at once. */
void wait_ms(uint64_t ms);

/* It sends; what that leads to has happened when these return. */
void put_bytes(struct client *client, const void *bytes, size_t n);
void put(struct client *client, const char *text);

/* It ends its side. */
void hang_up(struct client *client);

/* What it has been sent is this, all of it; it is taken. */
void expect_output(struct client *client, const char *text);

void expect_open(struct client *client);

/* Its agent was told once, of this reason, and nothing is left of it. */
void expect_end(struct client *client, enum close_reason reason);

/* The kind of time-out ends it after so long, and not a millisecond sooner. */
void expect_timeout_after(struct client *c, uint64_t ms, enum timeout_kind kind, enum close_reason reason);

/* Chance that is the same each time: what it comes of begins anew in each program, or where a test says so. */
extern uint64_t at_random_seed;
uint32_t at_random(uint32_t bound);

/* A poll of connections over sockets, and what follows. */
struct poller;
void serve_polled(struct poller *poller, int timeout_ms);
