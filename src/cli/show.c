#include "cli/show.h"

#include "base/text.h"

#include <stdbool.h>
#include <string.h>

static long long number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));
	return value ? value : "";
}

static void show(const json_t *object, const char *name)
{
	const char *shown = text(object, name);
	text_put(stdout, TEXT_LINE, shown, strlen(shown));
}

static const char *plural(long long n)
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
	long long conns = number(canary, "connections");
	printf("), canary: takes a share of %.9g, %lld of %lld connection%s failed, ",
	       json_number_value(json_object_get(canary, "share")), number(canary, "errors"), conns,
	       plural(conns));
	show_age(number(canary, "left_ms"));
	puts(" left");
}

/* ")", ", withdrawn, 3 migrated, 2 could not" */
static void show_old(const json_t *one)
{
	long long migrated = number(one, "migrated"), stay = number(one, "not_migrated");
	fputs(!strcmp(text(one, "state"), "withdrawn") ? "), withdrawn" : ")", stdout);
	if (migrated || stay)
		printf(", %lld migrated, %lld could not", migrated, stay);
	putchar('\n');
}

static void show_generation(const json_t *one, const json_t *canary)
{
	long long conns = number(one, "connections");
	printf("  %-4lld %lld connection%s, since ", number(one, "generation"), conns, plural(conns));
	show(one, "since");
	fputs(" (", stdout);
	show_age(number(one, "age_ms"));
	if (json_is_true(json_object_get(one, "newest")))
		puts("), takes new ones");
	else if (json_is_object(canary) && number(canary, "generation") == number(one, "generation"))
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
		show(one, "address");
		if (strcmp(text(one, "address"), text(one, "listener")) != 0) {
			fputs("  ", stdout);
			show(one, "listener");
		}
		printf("  %lld open of %lld, %lld refused%s\n", number(one, "open"), number(one, "limit"),
		       number(one, "refused"),
		       json_is_true(json_object_get(one, "removed")) ? ", removed" : "");
	}
}

/* ", held up 2 times" */
static void show_held_up(const json_t *worker)
{
	const json_t *by = json_object_get(worker, "held_up_by");
	long long times = number(worker, "held_up");
	if (times)
		printf(", held up %lld time%s", times, plural(times));
	if (json_is_object(by)) {
		fputs(", now for ", stdout);
		show_age(number(by, "ms"));
		fputs(" by ", stdout);
		show(by, "callback");
		printf(" of connection %lld", number(by, "conn"));
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
		long long conns = number(one, "connections"), generations = number(one, "generations");
		printf("  %-4lld %lld connection%s, %lld generation%s, frames: %lld in, %lld out, %lld "
		       "fault%s",
		       number(one, "worker"), conns, plural(conns), generations, plural(generations),
		       number(one, "frames_in"), number(one, "frames_out"), number(one, "faults"),
		       plural(number(one, "faults")));
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

static void show_counters(const json_t *counters)
{
	printf("connections  %lld now", number(counters, "open"));
	show_parts(json_object_get(counters, "states"));
	printf("             %lld accepted, %lld closed", number(counters, "accepted"),
	       number(counters, "closed"));
	show_parts(json_object_get(counters, "reasons"));
	if (number(counters, "migrated") || number(counters, "not_migrated"))
		printf("             %lld migrated, %lld could not\n", number(counters, "migrated"),
		       number(counters, "not_migrated"));
	printf("frames       %lld in, %lld out; %lld and %lld bytes\n", number(counters, "frames_in"),
	       number(counters, "frames_out"), number(counters, "bytes_in"), number(counters, "bytes_out"));
	printf("faults       %lld", number(counters, "faults"));
	show_parts(json_object_get(counters, "fault_reasons"));
}

static void show_last_reload(const json_t *last)
{
	if (!json_is_object(last)) {
		puts("last reload  none");
		return;
	}
	fputs("last reload  ", stdout);
	show(last, "outcome");
	fputs(" at ", stdout);
	show(last, "time");
	printf(", generation %lld\n", number(last, "generation"));
	const char *message = text(last, "message");
	text_put(stdout, TEXT_LINES, message, strlen(message));
	if (*message && message[strlen(message) - 1] != '\n')
		putchar('\n');
}

void show_status(const json_t *reply)
{
	show(reply, "script");
	fputs(": ", stdout);
	show(reply, "stage");
	printf(", generation %lld, pid %lld, perilune ", number(reply, "generation"), number(reply, "pid"));
	show(reply, "version");
	fputs(", up ", stdout);
	show_age(number(reply, "uptime_ms"));
	putchar('\n');
	show_listeners(reply);
	show_workers(reply);
	show_generations(reply);
	show_counters(json_object_get(reply, "counters"));
	show_last_reload(json_object_get(reply, "last_reload"));
}
