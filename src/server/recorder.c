#include "server/recorder.h"

#include "base/log.h"
#include "base/version.h"
#include "control/message.h"
#include "server/status.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	LAST_LINE_MAX = 1024, /* room for it is kept within the limit */
	HURRY_MS = 1000,
	REDACT_MAX_US = 50000, /* its connections wait as long */
};

/* ---- listeners ---- */

static bool recorder_is_meant(const struct listener_config *config, const struct listener *listener,
			      const char *text)
{
	const char *colon = strrchr(listener->address, ':');
	return !strcmp(config->name, text) || !strcmp(config->address, text) ||
	       !strcmp(listener->address, text) ||
	       (config->kind != LISTENER_UNIX && colon && !strcmp(colon + 1, text));
}

static void list_listeners(const struct config *config, const struct listeners *listeners, const char *text,
			   char *why, size_t size)
{
	int at = snprintf(why, size, "there is no listener '%.100s'; there are: ", text);
	for (unsigned i = 0; i < config->listener_count && at > 0 && (size_t)at < size; i++) {
		const struct listener_config *one = &config->listeners[i];
		const char *address = listeners->slots[one->slot]->address;
		bool named = strcmp(one->name, one->address) != 0;
		at += snprintf(why + at, size - (size_t)at, "%s%s%s%s%s", i ? ", " : "",
			       named ? one->name : address, named ? " (" : "", named ? address : "",
			       named ? ")" : "");
	}
}

bool *recorder_find(const struct config *config, const struct listeners *listeners, const char *text,
		    char *why, size_t size)
{
	bool *wanted = calloc(LISTENER_SLOTS, sizeof *wanted), any = false;
	snprintf(why, size, "not enough memory");
	for (unsigned i = 0; wanted && i < config->listener_count; i++) {
		const struct listener_config *one = &config->listeners[i];
		wanted[one->slot] = recorder_is_meant(one, listeners->slots[one->slot], text);
		any = any || wanted[one->slot];
	}
	if (any || !wanted)
		return wanted;
	list_listeners(config, listeners, text, why, size);
	free(wanted);
	return NULL;
}

/* ---- the first line and the last one ---- */

static json_t *recorder_listeners_of(const struct config *config, const bool *wanted)
{
	json_t *all = json_array();
	for (unsigned i = 0; i < config->listener_count; i++) {
		const struct listener_config *listener = &config->listeners[i];
		if (wanted && !wanted[listener->slot])
			continue;
		json_t *one = json_object();
		message_set_text(one, "name", listener->name);
		message_set_text(one, "address", listener->address);
		message_set_text(one, "frame", listener->framing);
		json_array_append_new(all, one);
	}
	return all;
}

static struct chunk *chunk_of(const char *text)
{
	size_t n = text ? strlen(text) : 0;
	struct chunk *chunk = text ? malloc(sizeof *chunk + n + 1) : NULL;
	if (!chunk)
		return NULL;
	*chunk = (struct chunk){ .used = n, .room = n };
	memcpy(chunk->lines, text, n + 1);
	return chunk;
}

static struct chunk *first_line(const struct recorder *recorder, const struct config *config,
				unsigned generation, const bool *wanted)
{
	json_t *head = json_object();
	json_object_set_new(head, "perilune_trace", json_integer(TRACE_FORMAT));
	message_set_text(head, "version", PERILUNE_VERSION);
	message_set_text(head, "script", config->script);
	json_object_set_new(head, "generation", json_integer(generation));
	json_object_set_new(head, "workers", json_integer(recorder->worker_count));
	status_set_now(head, "began");
	json_object_set_new(head, "listeners", recorder_listeners_of(config, wanted));
	char *line = message_line(head);
	json_decref(head);
	struct chunk *chunk = chunk_of(line);
	free(line);
	return chunk;
}

struct totals {
	uint64_t lost, redaction_failures;
	bool is_broken;
};

static struct totals totals_of(const struct recorder *recorder)
{
	struct totals sum = { 0 };
	for (unsigned i = 0; i < recorder->worker_count; i++) {
		sum.lost += recorder->tapings[i].tape.lost;
		sum.redaction_failures += recorder->tapings[i].tape.redaction_failures;
		sum.is_broken = sum.is_broken || recorder->tapings[i].tape.is_broken;
	}
	return sum;
}

static struct chunk *last_line(struct recorder *recorder)
{
	struct totals totals = totals_of(recorder);
	if (totals.is_broken)
		snprintf(recorder->reason, sizeof recorder->reason, "not enough memory");
	json_t *last = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I}", "event", "end", "connections",
				 (json_int_t)recorder->conns, "frames", (json_int_t)recorder->frames, "bytes",
				 (json_int_t)recorder->frame_bytes, "lost", (json_int_t)totals.lost,
				 "redaction_failures", (json_int_t)totals.redaction_failures);
	message_set_text(last, "reason", recorder->reason);
	char *line = message_line(last), text[LAST_LINE_MAX];
	json_decref(last);
	/* The time as other lines have it. */
	snprintf(text, sizeof text, "{\"t\":%.6f,%s", (double)(tape_clock_us() - recorder->began_us) / 1e6,
		 line ? line + 1 : "");
	struct chunk *chunk = line ? chunk_of(text) : NULL;
	free(line);
	return chunk;
}

/* ---- the end ---- */

static void drop_chunks(struct recorder *recorder)
{
	for (struct mail *next, *mail = recorder->first; mail; mail = next) {
		next = mail->next;
		free(mail);
	}
	recorder->first = NULL;
	recorder->last = &recorder->first;
}

static void recorder_finish(struct recorder *recorder)
{
	struct totals totals = totals_of(recorder);
	drop_chunks(recorder);
	uv_timer_stop(&recorder->timer);
	recorder->stage = RECORDER_IDLE;
	log_write(LOG_INFO, "recording ended", F_TEXT("reason", recorder->reason),
		  F_INT("connections", recorder->conns), F_INT("frames", recorder->frames),
		  F_INT("bytes", recorder->bytes), F_INT("lost", totals.lost),
		  F_INT("redaction_failures", totals.redaction_failures));
	if (recorder->has_sink)
		recorder->sink.end(recorder->sink.owner);
	recorder->has_sink = false;
	uv_async_send(recorder->wake); /* the server may wait for it */
}

/* ---- on the way ---- */

static void recorder_append(struct recorder *recorder, struct chunk *chunk)
{
	chunk->mail.next = NULL;
	*recorder->last = &chunk->mail;
	recorder->last = &chunk->mail.next;
}

/* Hands the sink the next chunk, if it has kept the last one. */
static void recorder_advance(struct recorder *recorder)
{
	if (recorder->stage == RECORDER_IDLE || recorder->keeping ||
	    (recorder->has_sink && !recorder->is_ready))
		return;
	if (!recorder->first && recorder->stage == RECORDER_ENDING && !recorder->unended &&
	    !recorder->was_told) {
		struct chunk *chunk = recorder->has_sink ? last_line(recorder) : NULL;
		recorder->was_told = true;
		if (chunk) {
			atomic_fetch_add_explicit(&recorder->held_bytes, chunk->used, memory_order_relaxed);
			recorder_append(recorder, chunk);
		}
	}
	struct chunk *chunk = (struct chunk *)(void *)recorder->first;
	if (!chunk) {
		if (recorder->was_told)
			recorder_finish(recorder);
		return;
	}
	recorder->first = chunk->mail.next;
	if (!recorder->first)
		recorder->last = &recorder->first;
	size_t n = chunk->used;
	recorder->keeping = n;
	recorder->bytes += n;
	recorder->conns += chunk->conns;
	recorder->frames += chunk->frames;
	recorder->frame_bytes += chunk->frame_bytes;
	/* The lines come to the front, so that it can be freed as what it is. */
	memmove(chunk, chunk->lines, n);
	if (!recorder->sink.keep(recorder->sink.owner, (char *)chunk, n))
		recorder_drop_stream(recorder, "nobody keeps it any more");
}

void recorder_ready(struct recorder *recorder)
{
	recorder->is_ready = true;
	recorder_advance(recorder);
}

void recorder_kept(struct recorder *recorder)
{
	size_t n = recorder->keeping;
	recorder->keeping = 0;
	atomic_fetch_sub_explicit(&recorder->held_bytes, n, memory_order_relaxed);
	recorder_advance(recorder);
}

/* The whole chunk, or nothing of it: the counts of the last line are of what is there. */
static void recorder_take(struct recorder *recorder, struct chunk *chunk)
{
	uint64_t would_be = recorder->taken_bytes + chunk->used + LAST_LINE_MAX;
	if (recorder->limits.bytes && would_be > recorder->limits.bytes) {
		recorder->is_full = true;
		recorder_stop(recorder, "max_size");
	}
	if (recorder->is_full || !recorder->has_sink) {
		atomic_fetch_sub_explicit(&recorder->held_bytes, chunk->used, memory_order_relaxed);
		free(chunk);
		return;
	}
	recorder->taken_bytes += chunk->used;
	recorder_append(recorder, chunk);
}

void recorder_look(struct recorder *recorder)
{
	struct mail *next, *mail = mailbox_take(&recorder->chunks);
	for (; mail; mail = next) {
		next = mail->next;
		recorder_take(recorder, (struct chunk *)(void *)mail);
	}
	recorder_advance(recorder);
}

/* From any worker's thread. */
static void on_chunk(void *owner, struct chunk *chunk)
{
	struct recorder *recorder = owner;
	mailbox_push(&recorder->chunks, &chunk->mail);
	uv_async_send(recorder->wake);
}

void recorder_taped(struct recorder *recorder)
{
	if (--recorder->unended)
		return;
	/* Their workers have stopped, unless it was asked for. */
	recorder_stop(recorder, "the server has stopped");
}

/* ---- life ---- */

static void recorder_on_timer(uv_timer_t *timer)
{
	struct recorder *recorder = timer->data;
	if (recorder->stage == RECORDER_RUNNING)
		recorder_stop(recorder, "seconds");
	else
		recorder_drop_stream(recorder, "the server has stopped, and the rest was not taken in time");
}

void recorder_stop(struct recorder *recorder, const char *reason)
{
	if (recorder->stage != RECORDER_RUNNING)
		return;
	recorder->stage = RECORDER_ENDING;
	snprintf(recorder->reason, sizeof recorder->reason, "%s", reason);
	uv_timer_stop(&recorder->timer);
	for (unsigned i = 0; i < recorder->worker_count && recorder->unended; i++)
		worker_record_no_more(&recorder->workers[i], &recorder->tapings[i]);
}

void recorder_drop_stream(struct recorder *recorder, const char *reason)
{
	if (recorder->stage == RECORDER_IDLE)
		return;
	recorder->has_sink = false;
	recorder->keeping = 0;
	if (recorder->stage == RECORDER_RUNNING)
		recorder_stop(recorder, reason);
	else
		snprintf(recorder->reason, sizeof recorder->reason, "%s", reason);
	drop_chunks(recorder);
	if (!recorder->unended) {
		recorder->was_told = true;
		recorder_advance(recorder);
	}
}

void recorder_bound_rest(struct recorder *recorder)
{
	if (recorder->stage != RECORDER_IDLE)
		uv_timer_start(&recorder->timer, recorder_on_timer, HURRY_MS, 0);
}

void recorder_open(struct recorder *recorder, uv_loop_t *loop, struct worker *workers, unsigned worker_count,
		   uv_async_t *wake)
{
	*recorder = (struct recorder){ .workers = workers, .worker_count = worker_count, .wake = wake };
	mailbox_init(&recorder->chunks);
	recorder->last = &recorder->first;
	uv_timer_init(loop, &recorder->timer);
	recorder->timer.data = recorder;
}

void recorder_close(struct recorder *recorder)
{
	uv_close((uv_handle_t *)&recorder->timer, NULL);
}

void recorder_deinit(struct recorder *recorder)
{
	for (struct mail *next, *mail = mailbox_take(&recorder->chunks); mail; mail = next) {
		next = mail->next;
		free(mail);
	}
	drop_chunks(recorder);
	free(recorder->tapings);
	free(recorder->wanted);
	recorder->tapings = NULL;
	recorder->wanted = NULL;
}

static void recorder_prepare(struct recorder *recorder, struct taping *taping, unsigned worker)
{
	tape_init(&taping->tape, worker, recorder->began_us);
	taping->tape.wanted = recorder->wanted;
	taping->tape.wanted_count = LISTENER_SLOTS;
	taping->tape.limit_bytes = RECORDER_HELD_MAX;
	taping->tape.redact_max_us = REDACT_MAX_US;
	taping->tape.held_bytes = &recorder->held_bytes;
	taping->owner = recorder;
	taping->give = on_chunk;
}

bool recorder_begin(struct recorder *recorder, const struct config *config, unsigned generation, bool *wanted,
		    struct recorder_limits limits, struct recorder_sink sink, const char **why)
{
	struct taping *tapings = NULL;
	struct chunk *head = NULL;
	*why = "there is a recording already; there can be one at a time";
	if (recorder->stage == RECORDER_IDLE) {
		*why = "not enough memory";
		tapings = calloc(recorder->worker_count, sizeof *tapings);
		head = tapings ? first_line(recorder, config, generation, wanted) : NULL;
	}
	if (!head) {
		free(tapings);
		free(wanted);
		return false;
	}
	recorder_deinit(recorder); /* what is left of the last one */
	recorder->tapings = tapings;
	recorder->wanted = wanted;
	recorder->sink = sink;
	recorder->limits = limits;
	recorder->has_sink = true;
	recorder->is_ready = recorder->was_told = recorder->is_full = false;
	recorder->keeping = 0;
	recorder->taken_bytes = recorder->bytes = recorder->conns = recorder->frames = recorder->frame_bytes =
	    0;
	recorder->began_us = tape_clock_us();
	recorder->stage = RECORDER_RUNNING;
	atomic_store_explicit(&recorder->held_bytes, head->used, memory_order_relaxed);
	recorder->unended = recorder->worker_count;
	for (unsigned i = 0; i < recorder->worker_count; i++) {
		recorder_prepare(recorder, &tapings[i], i);
		worker_record(&recorder->workers[i], &tapings[i]);
	}
	recorder_take(recorder, head);
	if (limits.ms)
		uv_timer_start(&recorder->timer, recorder_on_timer, limits.ms, 0);
	log_write(LOG_INFO, "recording begun", F_INT("generation", generation));
	return true;
}
