/*
 * The generations that a worker has: the one that takes new connections, a candidate that takes some, and older ones
 * that have some still. What becomes of their connections is succession.c's.
 *
 * Threads: the worker's.
 */
#pragma once

#include "config/config.h"

struct generation;
struct worker;

/* One more, which is reported (adopted): the newest, or with `is_candidate` set a candidate. */
void generations_adopt(struct worker *worker, struct generation *generation);

/* The candidate becomes the newest; reported in the same way. */
void generations_promote(struct worker *worker, struct generation *candidate);

/* The candidate is one no more: its connections go by its policies, and the newest is their successor. */
void generations_withdraw(struct worker *worker, struct generation *candidate);

/* Another policy for the connections of the older ones; or for the candidate's, once there is one. */
void generations_set_policy(struct worker *worker, enum reload_policy policy);

/* Lets those go whose last connection has gone. Outside of Lua, when nothing of theirs is left to run. */
void generations_retire(struct worker *worker);
