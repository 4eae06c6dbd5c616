/*
 * What a server is doing, as JSON for its operator. Nothing here waits for a worker: a handler that does not return
 * is when one wants to look.
 *
 * Threads: the main thread.
 */
#pragma once

#include "control/path.h"

#include <jansson.h>
#include <stdint.h>

struct acceptor;
struct config;
struct dicts;
struct jobs;
struct hub;
struct names;
struct reload_outcome;
struct reloads;
struct worker;

/* The server as it is at this moment; lent. */
struct server_view {
	const char *stage; /* "starting", "serving", "leaving", "draining" */
	const struct config *config;
	const struct acceptor *acceptor;
	const struct worker *workers;
	unsigned worker_count; /* that were started */
	struct dicts *dicts;
	struct jobs *jobs;
	struct names *names;
	struct hub *hub;
	const struct reloads *reloads;
	uint64_t uptime_ms, now_ms; /* uv_now() */
};

/* Adds to a reply; without memory parts are missing. */
void status_add_all(json_t *reply, const struct server_view *view);
void status_add_generations(json_t *reply, const struct server_view *view);

/* The time of day, in UTC: "2026-02-03T04:05:06.789Z". */
void status_set_now(json_t *object, const char *name);

/* {"number":…,"outcome":"reloaded"|"failed"|"refused",…}, or null when there has been none. */
json_t *status_outcome(const struct reload_outcome *outcome);
