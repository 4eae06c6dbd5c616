/*
 * What becomes of a worker's connections when a new generation takes over: those whose listener says so migrate to it,
 * a few at a time, or are ended, spread over the time of a drain, so that their peers do not come back all at once.
 * The others keep their generation, and nothing is done.
 *
 * Threads: the worker's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct handover_part;
struct worker;

/* The newest generation has just become that, or there are other policies or other generations that go by them. */
void succession_begin(struct worker *worker);

/* Reports it (handed_over) once all connections have been asked. */
void succession_tell(struct worker *worker, struct handover_part *part);

/* Something later begins, or the worker stops: whoever is to be told is told now. */
void succession_end(struct worker *worker);

/* Before conn_host_turn(). True: there is more to do at once. */
bool succession_turn(struct worker *worker);

/* When succession_turn() must next run; WHEEL_NEVER: need not. */
uint64_t succession_next_ms(const struct worker *worker);
