#include "agent/repeats.h"

#include "agent/agent.h"
#include "base/err.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

enum {
	WINDOW_MS = 10000,
	PER_PLACE = 5, /* entries in a window: enough to see what the errors have in common */
	PER_LISTENER = 32,
	PER_BAD_FRAME = 5,
	OF_REFUSALS = 1 << 16, /* beside the listener, in what an event is about */
};

#define TLS_FAILED "TLS failed" /* whatever has */

/* "×318 in 10 s" */
static void times_text(char *text, size_t size, const struct fold_entry *entry, uint64_t lasted_ms)
{
	unsigned long long ms = lasted_ms ? lasted_ms : 1;
	uint32_t times = entry->shown + entry->repeats;
	if (ms < 1000)
		snprintf(text, size, "\xc3\x97%u in %llu ms", times, ms);
	else if (ms < WINDOW_MS)
		snprintf(text, size, "\xc3\x97%u in %.1f s", times, (double)ms / 1000);
	else
		snprintf(text, size, "\xc3\x97%u in %llu s", times, ms / 1000);
}

/* The app's faults are none of a listener's. */
static const char *listener_name(const struct agents *agents, unsigned about)
{
	unsigned listener = about % OF_REFUSALS;
	return listener < agents->endpoint_count ? agents->endpoints[listener].endpoint.name : "";
}

static void repeats_report(struct agents *agents, const struct fold_entry *entry, uint64_t lasted_ms,
			   enum log_level level, const char *message, const char *error, const char *place)
{
	char times[48];
	times_text(times, sizeof times, entry, lasted_ms);
	log_write(level, message, F_TEXT("error", error), F_TEXT("place", place), F_TEXT("repeats", times),
		  F_TEXT("listener", listener_name(agents, entry->about)),
		  F_INT("worker", agents->instance.worker), F_INT("generation", agents->instance.generation));
}

static void report_fault(struct agents *agents, const struct fold_entry *entry, uint64_t lasted_ms,
			 const char *error, const char *place)
{
	repeats_report(agents, entry, lasted_ms, LOG_ERROR, "handler failed again", error, place);
}

static void report_same(void *data, const struct fold_entry *entry, uint64_t lasted_ms)
{
	report_fault(data, entry, lasted_ms, entry->text, "");
}

static void report_place(void *data, const struct fold_entry *entry, uint64_t lasted_ms)
{
	report_fault(data, entry, lasted_ms, "other errors at this place", entry->text);
}

static void report_listener(void *data, const struct fold_entry *entry, uint64_t lasted_ms)
{
	report_fault(data, entry, lasted_ms, "other errors of this listener", "");
}

static void report_bad_frame(void *data, const struct fold_entry *entry, uint64_t lasted_ms)
{
	if (entry->about & OF_REFUSALS)
		repeats_report(data, entry, lasted_ms, LOG_WARN, "connection refused again", entry->text, "");
	else if (!strcmp(entry->text, TLS_FAILED))
		repeats_report(data, entry, lasted_ms, LOG_WARN, "TLS failed again", "", "");
	else
		repeats_report(data, entry, lasted_ms, LOG_WARN, "bad frame again", entry->text, "");
}

static void find_next(struct repeats *repeats)
{
	const struct fold *folds[] = { &repeats->same, &repeats->places, &repeats->listeners,
				       &repeats->bad_frames };
	repeats->next_ms = UINT64_MAX;
	for (size_t i = 0; i < sizeof folds / sizeof *folds; i++) {
		uint64_t at_ms = fold_next_ms(folds[i]);
		if (at_ms < repeats->next_ms)
			repeats->next_ms = at_ms;
	}
}

void repeats_init(struct repeats *repeats)
{
	fold_init(&repeats->same, WINDOW_MS);
	fold_init(&repeats->places, WINDOW_MS);
	fold_init(&repeats->listeners, WINDOW_MS);
	fold_init(&repeats->bad_frames, WINDOW_MS);
	repeats->next_ms = UINT64_MAX;
}

/*
 * What the peer may choose, it may choose anew each time; so a kind is remembered only when its entry is written, or a
 * flood would drive the others out of the folds, each with a report.
 */
bool repeats_show_fault(struct agents *agents, unsigned listener, const char *kind, const char *place,
			const char *message)
{
	struct repeats *repeats = &agents->repeats;
	uint64_t now_ms = agents->host->now_ms;
	char key[FOLD_TEXT_BYTES];
	snprintf(key, sizeof key, "%s%s%s", place, *place ? ": " : "", message);
	const struct fold_event same = { key, listener, 0 };
	const struct fold_event here = { kind, listener, PER_PLACE - 1 };
	const struct fold_event any = { "", listener, PER_LISTENER - 1 };
	bool show = !fold_repeat(&repeats->same, &same, now_ms) &&
		    !fold_repeat(&repeats->places, &here, now_ms) &&
		    fold_note(&repeats->listeners, &any, now_ms, report_listener, agents);
	if (show) {
		fold_note(&repeats->places, &here, now_ms, report_place, agents);
		fold_note(&repeats->same, &same, now_ms, report_same, agents);
	}
	find_next(repeats);
	return show;
}

static bool show_one_of_few(struct agents *agents, unsigned about, const char *kind)
{
	struct repeats *repeats = &agents->repeats;
	const struct fold_event event = { kind, about, PER_BAD_FRAME - 1 };
	bool show = fold_note(&repeats->bad_frames, &event, agents->host->now_ms, report_bad_frame, agents);
	find_next(repeats);
	return show;
}

bool repeats_show_refusal(struct agents *agents, unsigned listener, const char *why)
{
	return show_one_of_few(agents, listener | OF_REFUSALS, why);
}

bool repeats_show_tls_failure(struct agents *agents, unsigned listener)
{
	return show_one_of_few(agents, listener, TLS_FAILED);
}

bool repeats_show_bad_frame(struct agents *agents, unsigned listener, int err)
{
	const char *kind = err == ERR_FRAME_TOO_LARGE ? "frame too large"
			   : err == ERR_FRAME_EMPTY   ? "empty frame"
						      : "malformed frame";
	return show_one_of_few(agents, listener, kind);
}

typedef void sweep_fn(struct fold *fold, uint64_t now_ms, fold_report_fn *report, void *data);

static void sweep_all(struct agents *agents, sweep_fn *sweep, uint64_t now_ms)
{
	struct repeats *repeats = &agents->repeats;
	sweep(&repeats->same, now_ms, report_same, agents);
	sweep(&repeats->places, now_ms, report_place, agents);
	sweep(&repeats->listeners, now_ms, report_listener, agents);
	sweep(&repeats->bad_frames, now_ms, report_bad_frame, agents);
	find_next(repeats);
}

void repeats_sweep(struct agents *agents, uint64_t now_ms)
{
	sweep_all(agents, fold_sweep, now_ms);
}

void repeats_flush(struct agents *agents, uint64_t now_ms)
{
	sweep_all(agents, fold_flush, now_ms);
}
