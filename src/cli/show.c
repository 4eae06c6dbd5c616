#include "cli/show.h"

#include "base/text.h"

#include <stdbool.h>
#include <string.h>

static long long show_number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static const char *show_text(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));
	return value ? value : "";
}

static void show_show(const json_t *object, const char *name)
{
	const char *shown = show_text(object, name);
	text_put(stdout, TEXT_LINE, shown, strlen(shown));
}

static const char *show_plural(long long n)
{
	return n == 1 ? "" : "s";
}

/* "3 d 4 h", "12 min", "7 s" */
static void show_age(long long ms)
{
	long long s = ms / 1000;
	if (s < 60)
		printf("%lld s", s);
	else if (s < 3600)
		printf("%lld min", s / 60);
	else if (s < 86400)
		printf("%lld h %lld min", s / 3600, s / 60 % 60);
	else
		printf("%lld d %lld h", s / 86400, s / 3600 % 24);
}

/* "), canary: 2 of its 40 connections failed, 12 s left" */
static void show_canary(const json_t *canary)
{
	long long conns = show_number(canary, "connections");
	printf("), canary: takes a share of %.9g, %lld of %lld connection%s failed, ",
	       json_number_value(json_object_get(canary, "share")), show_number(canary, "errors"), conns,
	       show_plural(conns));
	show_age(show_number(canary, "left_ms"));
	puts(" left");
}

/* ")", ", withdrawn, 3 migrated, 2 could not" */
static void show_old(const json_t *one)
{
	long long migrated = show_number(one, "migrated"), stay = show_number(one, "not_migrated");
	fputs(!strcmp(show_text(one, "state"), "withdrawn") ? "), withdrawn" : ")", stdout);
	if (migrated || stay)
		printf(", %lld migrated, %lld could not", migrated, stay);
	putchar('\n');
}

static void show_generation(const json_t *one, const json_t *canary)
{
	long long conns = show_number(one, "connections"), agents = show_number(one, "residents");
	printf("  %-4lld %lld connection%s, ", show_number(one, "generation"), conns, show_plural(conns));
	if (agents)
		printf("%lld agent%s without a socket, ", agents, show_plural(agents));
	fputs("since ", stdout);
	show_show(one, "since");
	fputs(" (", stdout);
	show_age(show_number(one, "age_ms"));
	if (json_is_true(json_object_get(one, "newest")))
		puts("), takes new ones");
	else if (json_is_object(canary) &&
		 show_number(canary, "generation") == show_number(one, "generation"))
		show_canary(canary);
	else
		show_old(one);
}

void show_generations(const json_t *reply)
{
	size_t i;
	json_t *one;
	puts("generations");
	json_array_foreach(json_object_get(reply, "generations"), i, one)
	    show_generation(one, json_object_get(reply, "canary"));
}

static void show_listeners(const json_t *reply)
{
	size_t i;
	json_t *one;
	puts("listeners");
	json_array_foreach(json_object_get(reply, "listeners"), i, one)
	{
		fputs("  ", stdout);
		show_show(one, "address");
		if (strcmp(show_text(one, "address"), show_text(one, "listener")) != 0) {
			fputs("  ", stdout);
			show_show(one, "listener");
		}
		printf("  %lld open of %lld, %lld refused%s\n", show_number(one, "open"),
		       show_number(one, "limit"), show_number(one, "refused"),
		       json_is_true(json_object_get(one, "removed")) ? ", removed" : "");
	}
}

/* ", held up 2 times" */
static void show_held_up(const json_t *worker)
{
	const json_t *by = json_object_get(worker, "held_up_by");
	long long times = show_number(worker, "held_up");
	if (times)
		printf(", held up %lld time%s", times, show_plural(times));
	if (json_is_object(by)) {
		fputs(", now for ", stdout);
		show_age(show_number(by, "ms"));
		fputs(" by ", stdout);
		show_show(by, "callback");
		printf(" of connection %lld", show_number(by, "conn"));
	}
	putchar('\n');
}

static void show_workers(const json_t *reply)
{
	size_t i;
	json_t *one;
	puts("workers");
	json_array_foreach(json_object_get(reply, "workers"), i, one)
	{
		long long conns = show_number(one, "connections"),
			  generations = show_number(one, "generations");
		printf("  %-4lld %lld connection%s, %lld generation%s, frames: %lld in, %lld out, %lld "
		       "fault%s",
		       show_number(one, "worker"), conns, show_plural(conns), generations,
		       show_plural(generations), show_number(one, "frames_in"),
		       show_number(one, "frames_out"), show_number(one, "faults"),
		       show_plural(show_number(one, "faults")));
		show_held_up(one);
	}
}

/* " (peer 1, error 2)" and the end of the line, without those that are 0. */
static void show_parts(const json_t *parts)
{
	const char *name, *before = " (";
	json_t *value;
	json_object_foreach((json_t *)parts, name, value)
	{
		long long n = (long long)json_integer_value(value);
		if (!n)
			continue;
		text_printf(stdout, "%s%s %lld", before, name, n);
		before = ", ";
	}
	puts(*before == ',' ? ")" : "");
}

/* Those that were lost on the way, if any were. */
static void show_datagrams(const json_t *counters)
{
	long long dropped = show_number(counters, "dropped_datagrams"),
		  truncated = show_number(counters, "truncated_datagrams"),
		  lost = show_number(counters, "lost_datagrams"),
		  unsent = show_number(counters, "unsent_datagrams");
	if (dropped || truncated || lost || unsent)
		printf("datagrams    %lld dropped, %lld too large, %lld lost by the system, %lld not sent\n",
		       dropped, truncated, lost, unsent);
}

static void show_counters(const json_t *counters)
{
	printf("connections  %lld now", show_number(counters, "open"));
	show_parts(json_object_get(counters, "states"));
	printf("             %lld accepted, %lld closed", show_number(counters, "accepted"),
	       show_number(counters, "closed"));
	show_parts(json_object_get(counters, "reasons"));
	if (show_number(counters, "migrated") || show_number(counters, "not_migrated"))
		printf("             %lld migrated, %lld could not\n", show_number(counters, "migrated"),
		       show_number(counters, "not_migrated"));
	printf("frames       %lld in, %lld out; %lld and %lld bytes\n", show_number(counters, "frames_in"),
	       show_number(counters, "frames_out"), show_number(counters, "bytes_in"),
	       show_number(counters, "bytes_out"));
	show_datagrams(counters);
	printf("faults       %lld", show_number(counters, "faults"));
	show_parts(json_object_get(counters, "fault_reasons"));
}

/* Nothing of a server that makes none. */
static void show_outgoing(const json_t *outgoing, long long failures)
{
	if (!show_number(outgoing, "connected") && !failures)
		return;
	printf("out          %lld now", show_number(outgoing, "open"));
	show_parts(json_object_get(outgoing, "states"));
	printf("             %lld made, %lld failed, %lld closed", show_number(outgoing, "connected"),
	       failures, show_number(outgoing, "closed"));
	show_parts(json_object_get(outgoing, "reasons"));
}

/* Agents without a socket: nothing of a server that has had none. */
static void show_residents(const json_t *residents)
{
	if (!show_number(residents, "begun"))
		return;
	printf("agents       %lld without a socket now\n", show_number(residents, "open"));
	printf("             %lld begun, %lld ended", show_number(residents, "begun"),
	       show_number(residents, "ended"));
	show_parts(json_object_get(residents, "reasons"));
}

/* A line for each dictionary. */
static void show_dicts(const json_t *dicts)
{
	size_t i;
	const json_t *dict;
	json_array_foreach(dicts, i, dict)
	{
		fputs(i ? "             " : "shared       ", stdout);
		show_show(dict, "name");
		printf(": %lld entries, %lld of %lld bytes, %lld hits, %lld misses, %lld evicted\n",
		       show_number(dict, "entries"), show_number(dict, "bytes"), show_number(dict, "limit"),
		       show_number(dict, "hits"), show_number(dict, "misses"), show_number(dict, "evicted"));
	}
}

static void show_jobs(const json_t *jobs)
{
	if (!json_is_object(jobs))
		return;
	printf("jobs         %lld wait, %lld run in %lld of %lld threads; %lld done, %lld failed, %lld shed, "
	       "%lld cancelled\n",
	       show_number(jobs, "waiting"), show_number(jobs, "running"), show_number(jobs, "threads"),
	       show_number(jobs, "workers"), show_number(jobs, "done"), show_number(jobs, "failed"),
	       show_number(jobs, "shed"), show_number(jobs, "cancelled"));
}

static void show_names(const json_t *reply)
{
	const json_t *counters = json_object_get(reply, "counters");
	long long names = show_number(reply, "names"), sent = show_number(counters, "messages_sent"),
		  delivered = show_number(counters, "messages_delivered"),
		  dropped = show_number(counters, "messages_dropped");
	long long waiting = sent - delivered - dropped; /* each worker counts on while the others are asked */
	if (names || sent)
		printf("names        %lld, %lld messages sent, %lld delivered, %lld dropped, %lld waiting\n",
		       names, sent, delivered, dropped, waiting > 0 ? waiting : 0);
}

static void show_hub(const json_t *reply)
{
	static const char *const DROPPED[] = { "hub_dropped_oldest", "hub_dropped_newest", "hub_replaced",
					       "hub_unfit",          "hub_evicted",        "hub_left" };
	const json_t *counters = json_object_get(reply, "counters");
	long long members = show_number(counters, "hub_joined") - show_number(counters, "hub_parted"),
		  published = show_number(counters, "hub_published"), dropped = 0;
	for (size_t i = 0; i < sizeof DROPPED / sizeof *DROPPED; i++)
		dropped += show_number(counters, DROPPED[i]);
	long long delivered = show_number(counters, "hub_delivered"),
		  waiting = show_number(counters, "hub_addressed") - delivered - dropped;
	if (members > 0 || published)
		printf("hub          %lld topics, %lld members, %lld messages published, %lld delivered, "
		       "%lld dropped, %lld waiting\n",
		       show_number(reply, "topics"), members > 0 ? members : 0, published, delivered, dropped,
		       waiting > 0 ? waiting : 0);
}

static void show_last_reload(const json_t *last)
{
	if (!json_is_object(last)) {
		puts("last reload  none");
		return;
	}
	fputs("last reload  ", stdout);
	show_show(last, "outcome");
	fputs(" at ", stdout);
	show_show(last, "time");
	printf(", generation %lld\n", show_number(last, "generation"));
	const char *message = show_text(last, "message");
	text_put(stdout, TEXT_LINES, message, strlen(message));
	if (*message && message[strlen(message) - 1] != '\n')
		putchar('\n');
}

void show_status(const json_t *reply)
{
	show_show(reply, "script");
	fputs(": ", stdout);
	show_show(reply, "stage");
	printf(", generation %lld, pid %lld, perilune ", show_number(reply, "generation"),
	       show_number(reply, "pid"));
	show_show(reply, "version");
	fputs(", up ", stdout);
	show_age(show_number(reply, "uptime_ms"));
	putchar('\n');
	show_listeners(reply);
	show_workers(reply);
	show_generations(reply);
	show_counters(json_object_get(reply, "counters"));
	show_outgoing(json_object_get(reply, "outgoing"),
		      show_number(json_object_get(reply, "counters"), "connect_failures"));
	show_residents(json_object_get(reply, "residents"));
	show_dicts(json_object_get(reply, "shared"));
	show_jobs(json_object_get(reply, "jobs"));
	show_names(reply);
	show_hub(reply);
	show_last_reload(json_object_get(reply, "last_reload"));
}
