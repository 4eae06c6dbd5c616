#include "server/kicks.h"

#include "base/log.h"
#include "control/message.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	REASON_MAX = 200,
	KICKS_MAX = 1024, /* that are under way; whoever asked for them may have left */
	WAIT_MS = 10000,  /* for workers whose handlers do not return */
	LOOK_MS = 500,
};

struct kick {
	struct kick *next;
	uint64_t client;  /* 0: it was answered, or has left */
	unsigned missing; /* workers that have not said whether it is theirs */
	uint64_t until_ms;
	char reason[REASON_MAX + 1];
	struct eviction evictions[];
};

/* ---- answers ---- */

static void kicks_answer(struct kicks *kicks, struct kick *kick, json_t *reply)
{
	uint64_t client = kick->client;
	kick->client = 0;
	control_reply(kicks->control, client, reply);
}

static json_t *reply_of(const struct eviction *eviction)
{
	json_t *reply = message_ok();
	json_object_set_new(reply, "conn", json_integer((json_int_t)eviction->conn));
	json_object_set_new(reply, "worker", json_integer(eviction->report.worker));
	return reply;
}

static void on_patience(uv_timer_t *timer)
{
	struct kicks *kicks = timer->data;
	for (struct kick *kick = kicks->first; kick; kick = kick->next)
		if (kick->client && uv_now(timer->loop) >= kick->until_ms)
			kicks_answer(
			    kicks, kick,
			    message_error("no_answer",
					  "a worker has not answered for 10 s: a handler of it does not"
					  " return; the connection is ended once it does"));
	if (!kicks->first)
		uv_timer_stop(timer);
}

/* ---- one of them ---- */

static void forget(struct kicks *kicks, struct kick *kick)
{
	struct kick **link = &kicks->first;
	while (*link != kick)
		link = &(*link)->next;
	*link = kick->next;
	free(kick);
}

void kicks_evicted(struct kicks *kicks, struct report *report)
{
	struct eviction *eviction =
	    (struct eviction *)(void *)((char *)report - offsetof(struct eviction, report));
	struct kick *kick = eviction->owner;
	if (eviction->found)
		log_write(LOG_INFO, "connection kicked", F_INT("conn", eviction->conn),
			  F_INT("worker", eviction->report.worker), F_TEXT("why", kick->reason));
	if (eviction->found && kick->client)
		kicks_answer(kicks, kick, reply_of(eviction));
	if (--kick->missing)
		return;
	if (kick->client)
		kicks_answer(kicks, kick,
			     message_error("no_such_connection", "there is no connection with that id"));
	forget(kicks, kick);
}

static unsigned count_all(const struct kicks *kicks)
{
	unsigned n = 0;
	for (const struct kick *kick = kicks->first; kick; kick = kick->next)
		n++;
	return n;
}

void kicks_begin(struct kicks *kicks, uint64_t client, uint64_t conn, const char *reason,
		 struct worker *workers, unsigned worker_count)
{
	if (count_all(kicks) >= KICKS_MAX) {
		control_reply(kicks->control, client,
			      message_error("busy", "too many kicks wait for a worker that does not answer"));
		return;
	}
	struct kick *kick = calloc(1, sizeof *kick + worker_count * sizeof *kick->evictions);
	if (!kick || !worker_count) {
		control_reply(kicks->control, client, message_error("no_memory", "not enough memory"));
		free(kick);
		return;
	}
	kick->client = client;
	kick->missing = worker_count;
	kick->until_ms = uv_now(kicks->patience.loop) + WAIT_MS;
	snprintf(kick->reason, sizeof kick->reason, "%s", reason ? reason : "");
	kick->next = kicks->first;
	kicks->first = kick;
	if (!uv_is_active((uv_handle_t *)&kicks->patience))
		uv_timer_start(&kicks->patience, on_patience, LOOK_MS, LOOK_MS);
	for (unsigned i = 0; i < worker_count; i++) {
		kick->evictions[i].conn = conn;
		kick->evictions[i].owner = kick;
		worker_evict(&workers[i], &kick->evictions[i]);
	}
}

void kicks_forget(struct kicks *kicks, uint64_t client)
{
	for (struct kick *kick = kicks->first; kick; kick = kick->next)
		if (kick->client == client)
			kick->client = 0;
}

/* ---- life ---- */

void kicks_open(struct kicks *kicks, struct control *control, uv_loop_t *loop)
{
	kicks->control = control;
	uv_timer_init(loop, &kicks->patience);
	kicks->patience.data = kicks;
}

void kicks_close(struct kicks *kicks)
{
	uv_close((uv_handle_t *)&kicks->patience, NULL);
	for (struct kick *kick = kicks->first; kick; kick = kick->next)
		if (kick->client)
			kicks_answer(kicks, kick,
				     message_error("no_such_connection", "the server has ended"));
}

void kicks_deinit(struct kicks *kicks)
{
	for (struct kick *next, *kick = kicks->first; kick; kick = next) {
		next = kick->next;
		free(kick);
	}
	kicks->first = NULL;
}
