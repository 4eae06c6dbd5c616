#include "worker/stalls.h"

#include "base/counters.h"
#include "base/log.h"
#include "vm/stall.h"
#include "worker/worker.h"

#include <stdio.h>

/* "worker 0", or for a script that is being loaded, or buried, what is done with it: its thread serves nobody. */
static void name_subject(const struct stall_event *event, char *text, size_t size)
{
	if (event->conn)
		snprintf(text, size, "worker %d", event->worker);
	else
		snprintf(text, size, "%s", event->callback);
}

/* "worker 0 was held up for 3.0 s by proceed of conn 1, block.lua:4" */
static void stalls_describe(const struct stall_event *event, char *text, size_t size)
{
	char subject[64], how_long[48] = "", by[96] = "";
	name_subject(event, subject, sizeof subject);
	if (event->is_over)
		snprintf(how_long, sizeof how_long, " for %.1f s", (double)event->ms / 1000);
	if (event->conn)
		snprintf(by, sizeof by, " by %s of conn %llu", event->callback,
			 (unsigned long long)event->conn);
	snprintf(text, size, "%s %s held up%s%s%s%s", subject, event->is_over ? "was" : "is", how_long, by,
		 *event->place ? ", " : "", event->place);
}

static void stalls_tell(const struct stall_event *event)
{
	char what[320];
	stalls_describe(event, what, sizeof what);
	struct log_field fields[8];
	size_t n = 0;
	if (event->generation) /* else it is the script's, before it has one */
		fields[n++] = F_INT("worker", event->worker);
	fields[n++] = F_TEXT("callback", event->callback);
	if (event->conn)
		fields[n++] = F_INT("conn", event->conn);
	if (event->generation)
		fields[n++] = F_INT("generation", event->generation);
	fields[n++] = F_INT("duration_ms", event->ms);
	fields[n++] = F_TEXT("place", event->place);
	if (!event->is_over && event->conn)
		fields[n++] =
		    F_TEXT("hint", "the call waits in the system, and all connections of its worker with it");
	log_fields(LOG_WARN, what, fields, n);
}

static void stalls_take(struct worker *worker, const struct stall_event *event, uint64_t now_ms)
{
	struct held_up *held_up = &worker->held_up;
	if (event->is_over) {
		held_up->callback = NULL;
		return;
	}
	*held_up = (struct held_up){ held_up->times + 1, event->callback, event->conn,
				     now_ms > event->ms ? now_ms - event->ms : 0 };
}

void stalls_look(struct worker *workers, unsigned worker_count, struct counters *counters, uint64_t now_ms)
{
	struct stall_event event;
	while (stall_take(&event)) {
		if (!event.is_over)
			count(&counters->held_up);
		if (event.conn && (unsigned)event.worker < worker_count)
			stalls_take(&workers[event.worker], &event, now_ms);
		stalls_tell(&event);
	}
}

json_t *stalls_status(const struct held_up *held_up, uint64_t now_ms)
{
	if (!held_up->callback)
		return json_null();
	return json_pack("{s:s,s:I,s:I}", "callback", held_up->callback, "conn", (json_int_t)held_up->conn,
			 "ms", (json_int_t)(now_ms > held_up->since_ms ? now_ms - held_up->since_ms : 0));
}
