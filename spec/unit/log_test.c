#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 16384, TEXT_MAX_BYTES = 4096 };

static char output[4 * LINE_MAX_BYTES];
static size_t output_bytes;
static FILE *file;
static int real_stderr;

/* ---- what is logged between begin() and end() is in `output` ---- */

static void begin(void)
{
	fflush(stderr);
	file = tmpfile();
	assert_non_null(file);
	real_stderr = dup(STDERR_FILENO);
	dup2(fileno(file), STDERR_FILENO);
}

static void end(void)
{
	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	rewind(file);
	output_bytes = fread(output, 1, sizeof output - 1, file);
	output[output_bytes] = '\0';
	fclose(file);
}

static void write_fields(const char *message, const struct log_field *fields, size_t n)
{
	begin();
	log_fields(LOG_WARN, message, fields, n);
	end();
}

/* ---- a strict reader of one flat JSON object ---- */

static const unsigned char *skip_utf8(const unsigned char *s)
{
	size_t n = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3 : *s < 0xf5 ? 4 : 0;
	assert_true(n > 0);
	for (size_t i = 1; i < n; i++)
		assert_int_equal(s[i] & 0xc0, 0x80);
	assert_false(*s == 0xe0 && s[1] < 0xa0); /* overlong */
	assert_false(*s == 0xed && s[1] > 0x9f); /* surrogates */
	assert_false(*s == 0xf0 && s[1] < 0x90); /* overlong */
	assert_false(*s == 0xf4 && s[1] > 0x8f); /* past the last */
	return s + n;
}

static const unsigned char *skip_string(const unsigned char *s)
{
	assert_int_equal(*s++, '"');
	while (*s != '"') {
		assert_true(*s >= 0x20);
		if (*s != '\\') {
			s = skip_utf8(s);
			continue;
		}
		if (s[1] == 'u')
			for (int i = 2; i < 6; i++)
				assert_non_null(memchr("0123456789abcdefABCDEF", s[i], 22));
		else
			assert_non_null(memchr("\"\\/bfnrt", s[1], 8));
		s += s[1] == 'u' ? 6 : 2;
	}
	return s + 1;
}

static const unsigned char *skip_value(const unsigned char *s)
{
	if (*s == '"')
		return skip_string(s);
	if (*s == 't' || *s == 'f') {
		const char *word = *s == 't' ? "true" : "false";
		assert_memory_equal(s, word, strlen(word));
		return s + strlen(word);
	}
	s += *s == '-';
	size_t digits = strspn((const char *)s, "0123456789");
	assert_true(digits > 0);
	s += digits;
	if (*s == '.') {
		digits = strspn((const char *)s + 1, "0123456789");
		assert_true(digits > 0);
		s += 1 + digits;
	}
	if (*s == 'e') {
		s += s[1] == '-' || s[1] == '+' ? 2 : 1;
		digits = strspn((const char *)s, "0123456789");
		assert_true(digits > 0);
		s += digits;
	}
	return s;
}

/* The one line in `output` is one JSON object; returns the number of its members. */
static unsigned assert_json_line(void)
{
	const unsigned char *s = (const unsigned char *)output;
	unsigned members = 0;
	assert_int_equal(strlen(output), output_bytes);
	assert_true(output_bytes <= LINE_MAX_BYTES);
	assert_int_equal(*s, '{');
	do {
		s = skip_string(s + 1);
		assert_int_equal(*s++, ':');
		s = skip_value(s);
		members++;
	} while (*s == ',');
	assert_string_equal((const char *)s, "}\n");
	return members;
}

static void assert_has(const char *text)
{
	if (!strstr(output, text))
		fail_msg("no %s in %s", text, output);
}

static void assert_has_not(const char *text)
{
	if (strstr(output, text))
		fail_msg("%s in %s", text, output);
}

/* ---- tests ---- */

static int json(void **state)
{
	(void)state;
	log_init(LOG_JSON, LOG_INFO);
	return 0;
}

static int text(void **state)
{
	(void)state;
	log_init(LOG_TEXT, LOG_INFO);
	return 0;
}

static void a_json_line_has_time_level_message_fields(void **state)
{
	(void)state;
	begin();
	log_write(LOG_ERROR, "it broke", F_TEXT("peer", "[::1]:7"), F_INT("conn", -42),
		  F_INT("most", INT64_MAX), F_INT("least", INT64_MIN));
	end();
	assert_int_equal(assert_json_line(), 7);
	int year, month, day, hour, minute, second, millis, length = 0;
	sscanf(output, "{\"time\":\"%4d-%2d-%2dT%2d:%2d:%2d.%3dZ\",%n", &year, &month, &day, &hour, &minute,
	       &second, &millis, &length);
	assert_int_equal(length, 35);
	assert_string_equal(output + length,
			    "\"level\":\"error\",\"message\":\"it broke\",\"peer\":\"[::1]:7\",\"conn\":-42,"
			    "\"most\":9223372036854775807,\"least\":-9223372036854775808}\n");
}

static void levels_have_names_and_a_threshold(void **state)
{
	(void)state;
	static const char *const NAMES[] = { "debug", "info", "warn", "error" };
	for (unsigned least = LOG_DEBUG; least <= LOG_ERROR; least++) {
		log_init(LOG_JSON, (enum log_level)least);
		for (unsigned level = LOG_DEBUG; level <= LOG_ERROR; level++) {
			begin();
			log_fields((enum log_level)level, "m", NULL, 0);
			end();
			assert_int_equal(log_enabled((enum log_level)level), level >= least);
			assert_int_equal(output_bytes > 0, level >= least);
			if (level >= least)
				assert_has(NAMES[level]);
		}
	}
}

static void auto_is_json_where_nobody_watches(void **state)
{
	(void)state;
	begin();
	log_init(LOG_AUTO, LOG_INFO);
	log_fields(LOG_INFO, "m", NULL, 0);
	end();
	assert_int_equal(assert_json_line(), 3);
}

static void hostile_text_stays_in_its_string(void **state)
{
	(void)state;
	static const char *const HOSTILE[] = {
		"\"},{\"a\":\"b",
		"\\",
		"\\\"",
		"\r\n{}\n",
		"\x1b[31m\x07\x7f",
		"\xff\xfe",
		"\x80",
		"\xc3",
		"\xe2\x82",
		"\xc0\xaf",
		"\xe0\x80\x80",
		"\xed\xa0\x80",
		"\xf0\x80\x80\x80",
		"\xf4\x90\x80\x80",
		"\xf8\x88\x80\x80\x80",
		"\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82",
		"\xe2\x82\"",
		"\xf0\x9f\\",
	};
	for (size_t i = 0; i < sizeof HOSTILE / sizeof *HOSTILE; i++) {
		write_fields(HOSTILE[i], (struct log_field[]){ F_TEXT("a", HOSTILE[i]), F_INT("b", 1) }, 2);
		assert_int_equal(assert_json_line(), 5);
		assert_has(",\"b\":1}");
	}
}

static void escapes_say_what_was_there(void **state)
{
	(void)state;
	write_fields("a\"b\\c\nd\te\x7f", (struct log_field[]){ F_TEXT("x", "\xc3\xa9\xff") }, 1);
	assert_has("\"message\":\"a\\\"b\\\\c\\nd\\te\\u007f\"");
	assert_has("\"x\":\"\xc3\xa9\\\\xff\"");
}

static void a_zero_byte_ends_no_text(void **state)
{
	(void)state;
	const struct log_field fields[] = { F_BYTES("a\"b\x1b", "x\0y", 3), F_BYTES("excerpt", "1\0\n2", 4) };
	const struct log_entry entry = { LOG_WARN, "two\0parts", 9, fields, 2 };
	begin();
	log_entry(&entry);
	end();
	assert_int_equal(assert_json_line(), 5);
	assert_has(
	    "\"message\":\"two\\u0000parts\",\"a\\\"b\\u001b\":\"x\\u0000y\",\"excerpt\":\"1\\u0000\\n2\"}");
	log_init(LOG_TEXT, LOG_INFO);
	begin();
	log_entry(&entry);
	end();
	assert_has("two\\x00parts  a\"b\\x1b=x\\x00y\n1\\x00\n2\n");
}

static void random_bytes_make_valid_json(void **state)
{
	(void)state;
	uint64_t seed = 20260103;
	for (unsigned round = 0; round < 300; round++) {
		static char noise[3][9000];
		for (unsigned k = 0; k < 3; k++) {
			size_t n = 0, most = round % 10 ? 200 : sizeof noise[0] - 1;
			for (; n < most; n++) {
				seed = seed * 6364136223846793005u + 1442695040888963407u;
				unsigned char byte = (unsigned char)(seed >> 56);
				noise[k][n] = byte ? (char)byte : 'x';
			}
			noise[k][n] = '\0';
		}
		write_fields(noise[0],
			     (struct log_field[]){ F_TEXT("a", noise[1]), F_TEXT("excerpt", noise[2]) }, 2);
		assert_true(assert_json_line() >= 3);
	}
}

static void a_long_message_is_cut_and_its_fields_stay(void **state)
{
	(void)state;
	static char longer[3 * LINE_MAX_BYTES];
	static const char *const PIECES[] = { "x",  "\xe2\x82\xac",    "\xff", "\x01", "\"",
					      "\n", "\xf0\x9f\x99\x82" };
	for (size_t i = 0; i < sizeof PIECES / sizeof *PIECES; i++) {
		size_t n = 0, piece = strlen(PIECES[i]);
		for (; n + piece < sizeof longer; n += piece)
			memcpy(longer + n, PIECES[i], piece);
		longer[n] = '\0';
		write_fields(longer, (struct log_field[]){ F_TEXT("a", longer), F_INT("conn", 7) }, 2);
		assert_int_equal(assert_json_line(), 5);
		assert_has("\xe2\x80\xa6\",\"a\":");
		assert_has("\xe2\x80\xa6\",\"conn\":7}");
		assert_in_range(output_bytes, 2 * TEXT_MAX_BYTES, 2 * TEXT_MAX_BYTES + 200);
	}
}

static void a_text_that_just_fits_is_whole(void **state)
{
	(void)state;
	char message[TEXT_MAX_BYTES + 2];
	memset(message, 'x', sizeof message);
	message[TEXT_MAX_BYTES] = '\0';
	write_fields(message, NULL, 0);
	assert_has_not("\xe2\x80\xa6");
	message[TEXT_MAX_BYTES] = 'x';
	message[TEXT_MAX_BYTES + 1] = '\0';
	write_fields(message, NULL, 0);
	assert_has("x\xe2\x80\xa6\"}");
}

static void fields_that_do_not_fit_are_left_out_whole(void **state)
{
	(void)state;
	char longer[TEXT_MAX_BYTES + 1];
	struct log_field fields[8];
	memset(longer, '\x01', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	for (size_t cut = 0; cut < 60; cut++) {
		for (size_t i = 0; i < 8; i++)
			fields[i] = F_TEXT("field", i == 2 ? longer + cut * 68 : longer);
		write_fields(longer, fields, 8);
		assert_in_range(assert_json_line(), 5, 7);
	}
}

static void empty_fields_are_left_out(void **state)
{
	(void)state;
	const struct log_field fields[] = { F_TEXT("null", NULL), F_TEXT("none", ""), F_INT("zero", 0),
					    F_TEXT("excerpt", "") };
	for (unsigned format = LOG_TEXT; format <= LOG_JSON; format++) {
		log_init((enum log_format)format, LOG_INFO);
		write_fields("m", fields, 4);
		assert_has_not("null");
		assert_has_not("none");
		assert_has_not("excerpt");
		assert_has("zero");
	}
	assert_int_equal(assert_json_line(), 4);
}

static struct log_field real(const char *key, double value)
{
	return (struct log_field){ .key = key, .kind = LOG_IS_REAL, .real = value };
}

static void values_of_any_kind_are_written(void **state)
{
	(void)state;
	const struct log_field fields[] = {
		real("half", 0.5),
		real("third", 1.0 / 3),
		real("large", 1e300),
		real("least", -5e-324),
		real("nan", NAN),
		real("endless", -HUGE_VAL),
		{ .key = "yes", .kind = LOG_IS_BOOLEAN, .number = 1 },
		{ .key = "no", .kind = LOG_IS_BOOLEAN },
		{ .key = "void", .kind = LOG_IS_TEXT, .text = "", .shows_empty = true },
		{ .key = "cut", .kind = LOG_IS_TEXT, .text = "abcdefgh", .len = 8, .most = 5 },
	};
	write_fields("m", fields, 10);
	assert_int_equal(assert_json_line(), 13);
	assert_has(
	    "\"half\":0.5,\"third\":0.33333333333333331,\"large\":1e+300,\"least\":-4.9406564584125e-324");
	assert_has(
	    "\"endless\":\"-inf\",\"yes\":true,\"no\":false,\"void\":\"\",\"cut\":\"abcde\xe2\x80\xa6\"");
	assert_has("nan\"");
	log_init(LOG_TEXT, LOG_INFO);
	write_fields("m", fields, 10);
	assert_has("  half=0.5  third=0.33333333333333331  large=1e+300  least=-4.9406564584125e-324  nan=");
	assert_has("  endless=-inf  yes=true  no=false  void=  cut=abcde\xe2\x80\xa6\n");
}

/* What a script may hand over at most (src/bind/logging.c) has room, and so has what is ours behind it. */
static void all_fields_of_a_script_have_room(void **state)
{
	(void)state;
	char longer[TEXT_MAX_BYTES + 1];
	struct log_field fields[16 + 5];
	memset(longer, '\x01', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	for (size_t i = 0; i < 16; i++)
		fields[i] = (struct log_field){ .key = "a_name_of_thirty_two_bytes______",
						.kind = LOG_IS_TEXT,
						.text = longer,
						.len = sizeof longer - 1,
						.most = 512 };
	for (size_t i = 16; i < 21; i++)
		fields[i] =
		    F_TEXT("ours", "unix:///a/path/of/a/hundred/bytes/or/so/is/the/longest/name/that/a/"
				   "listener/can/have/0123456789");
	write_fields(longer, fields, 21);
	assert_int_equal(assert_json_line(), 3 + 21);
}

static void text_is_one_line(void **state)
{
	(void)state;
	write_fields("two\nlines \x1b[0m", (struct log_field[]){ F_TEXT("a", "x\ny\xff"), F_INT("b", 2) }, 2);
	int hour, minute, second, millis, length = 0;
	sscanf(output, "%2d:%2d:%2d.%3d %n", &hour, &minute, &second, &millis, &length);
	assert_int_equal(length, 13);
	assert_string_equal(output + length, "warn  two\\nlines \\x1b[0m  a=x\\ny\\xff  b=2\n");
}

static void what_an_excerpt_shows_is_not_told_twice(void **state)
{
	(void)state;
	const struct log_field fields[] = { F_TEXT("error", "boom"), F_TEXT("place", "a.lua:1"),
					    F_TEXT("traceback", "a.lua:1: in proceed"),
					    F_TEXT("peer", "boom"),
					    F_TEXT("excerpt", "error: boom\n  --> a.lua:1") };
	write_fields("m", fields, 5);
	assert_has("warn  m  peer=boom\nerror: boom\n  --> a.lua:1\n");
	/* What it does not show, or where there is none, is told. */
	write_fields("m", (struct log_field[]){ fields[0], fields[1], F_TEXT("excerpt", "another") }, 3);
	assert_has("m  error=boom  place=a.lua:1\nanother\n");
	write_fields("m", fields, 4);
	assert_has("m  error=boom  place=a.lua:1  traceback=a.lua:1: in proceed  peer=boom\n");
}

static void an_excerpt_follows_the_line(void **state)
{
	(void)state;
	const struct log_field fields[] = { F_TEXT("excerpt", "  1 | code\n    ^ \"here\""), F_INT("b", 2) };
	write_fields("m", fields, 2);
	assert_string_equal(output + 13, "warn  m  b=2\n  1 | code\n    ^ \"here\"\n");
	log_init(LOG_JSON, LOG_INFO);
	write_fields("m", fields, 2);
	assert_int_equal(assert_json_line(), 5);
	assert_has(",\"excerpt\":\"  1 | code\\n    ^ \\\"here\\\"\",\"b\":2}");
}

static void long_text_lines_are_cut(void **state)
{
	(void)state;
	static char longer[3 * LINE_MAX_BYTES];
	memset(longer, 'x', sizeof longer - 1);
	write_fields(longer, (struct log_field[]){ F_INT("b", 2), F_TEXT("excerpt", longer) }, 2);
	assert_has("\xe2\x80\xa6  b=2\nx");
	assert_in_range(output_bytes, LINE_MAX_BYTES - 16, LINE_MAX_BYTES);
	assert_int_equal(output[output_bytes - 1], '\n');
}

struct taker {
	struct log_sink sink; /* first */
	unsigned taken;
	enum log_level level;
	char message[32];
	int64_t number;
};

static void take(struct log_sink *sink, const struct log_entry *entry)
{
	struct taker *taker = (struct taker *)(void *)sink;
	taker->taken++;
	taker->level = entry->level;
	snprintf(taker->message, sizeof taker->message, "%s", entry->message);
	taker->number = entry->count ? entry->fields[0].number : -1;
}

static void a_sink_takes_all_levels_in_place_of_the_log(void **state)
{
	(void)state;
	struct taker outer = { .sink.take = take }, inner = { .sink.take = take };
	begin();
	assert_null(log_divert(&outer.sink));
	assert_ptr_equal(log_divert(&inner.sink), &outer.sink);
	log_write(LOG_DEBUG, "deep", F_INT("n", 7));
	assert_ptr_equal(log_divert(&outer.sink), &inner.sink);
	log_write(LOG_ERROR, "above", F_INT("n", 8));
	assert_ptr_equal(log_divert(NULL), &outer.sink);
	assert_false(log_enabled(LOG_DEBUG));
	end();
	assert_int_equal(output_bytes, 0);
	assert_int_equal(inner.taken, 1);
	assert_int_equal(inner.level, LOG_DEBUG);
	assert_string_equal(inner.message, "deep");
	assert_int_equal(inner.number, 7);
	assert_int_equal(outer.taken, 1);
	assert_int_equal(outer.number, 8);
	write_fields("m", NULL, 0);
	assert_true(output_bytes > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_json_line_has_time_level_message_fields, json),
		cmocka_unit_test_setup(levels_have_names_and_a_threshold, json),
		cmocka_unit_test_setup(auto_is_json_where_nobody_watches, text),
		cmocka_unit_test_setup(hostile_text_stays_in_its_string, json),
		cmocka_unit_test_setup(escapes_say_what_was_there, json),
		cmocka_unit_test_setup(a_zero_byte_ends_no_text, json),
		cmocka_unit_test_setup(random_bytes_make_valid_json, json),
		cmocka_unit_test_setup(a_long_message_is_cut_and_its_fields_stay, json),
		cmocka_unit_test_setup(a_text_that_just_fits_is_whole, json),
		cmocka_unit_test_setup(fields_that_do_not_fit_are_left_out_whole, json),
		cmocka_unit_test_setup(empty_fields_are_left_out, json),
		cmocka_unit_test_setup(values_of_any_kind_are_written, json),
		cmocka_unit_test_setup(all_fields_of_a_script_have_room, json),
		cmocka_unit_test_setup(text_is_one_line, text),
		cmocka_unit_test_setup(what_an_excerpt_shows_is_not_told_twice, text),
		cmocka_unit_test_setup(an_excerpt_follows_the_line, text),
		cmocka_unit_test_setup(long_text_lines_are_cut, text),
		cmocka_unit_test_setup(a_sink_takes_all_levels_in_place_of_the_log, text),
	};
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
