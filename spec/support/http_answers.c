#include "support/http_answers.h"

#include "support/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void http_answers_init(struct http_answers *answers, const struct http_reader_limits *limits, bool is_head,
		       uint64_t body_max)
{
	void *bytes = malloc(http_reader_bytes());
	MUST(bytes);
	*answers = (struct http_answers){ .reader = http_reader_init(bytes, limits) };
	http_reader_begin(answers->reader, is_head, body_max);
}

void http_answers_deinit(struct http_answers *answers)
{
	free(answers->reader);
	free(answers->kept);
}

static void note(struct http_answers *answers, const void *bytes, size_t n)
{
	if (n > sizeof answers->text - 1 - answers->text_bytes)
		n = sizeof answers->text - 1 - answers->text_bytes;
	memcpy(answers->text + answers->text_bytes, bytes, n);
	answers->text_bytes += n;
	answers->text[answers->text_bytes] = '\0';
}

static void note_text(struct http_answers *answers, const char *text)
{
	note(answers, text, strlen(text));
}

/* Whatever had come of it before: who asks is told that alone. */
static void refuse(struct http_answers *answers)
{
	answers->text_bytes = 0;
	note_text(answers, "no: ");
	note_text(answers, http_reader_why(answers->reader));
	answers->is_over = answers->is_refused = true;
}

static void note_end(struct http_answers *answers)
{
	note_text(answers, http_reader_answer(answers->reader)->keeps ? ", kept" : ", ends");
	answers->is_over = true;
}

static void note_step(struct http_answers *answers, const struct http_step *step)
{
	char status[16];
	switch (step->event) {
	case HTTP_HEAD:
		snprintf(status, sizeof status, "%u", http_reader_answer(answers->reader)->status);
		note_text(answers, status);
		if (http_reader_answer(answers->reader)->extent != HTTP_NO_BODY)
			note_text(answers, " ");
		break;
	case HTTP_DATA:
		note(answers, step->data, step->len);
		break;
	case HTTP_TRAILER:
		note_text(answers, " (");
		note(answers, step->data, step->len);
		note_text(answers, ")");
		break;
	case HTTP_END:
		note_end(answers);
		break;
	case HTTP_BROKEN:
		refuse(answers);
		break;
	case HTTP_INTERIM:
	case HTTP_MORE:
		break;
	}
}

/* False: it needs more, or is over. */
static bool step(struct http_answers *answers)
{
	size_t n = answers->kept_bytes;
	uint8_t *copy = malloc(n ? n : 1);
	MUST(copy);
	if (n)
		memcpy(copy, answers->kept, n);
	struct http_step made = http_reader_step(answers->reader, copy, n);
	answers->steps++;
	MUST(made.consumed <= n);
	MUST(!made.len || (made.data >= copy && made.data + made.len <= copy + made.consumed));
	note_step(answers, &made);
	free(copy);
	answers->kept_bytes -= made.consumed;
	if (answers->kept_bytes)
		memmove(answers->kept, answers->kept + made.consumed, answers->kept_bytes);
	return !answers->is_over && made.event != HTTP_MORE;
}

void http_answers_put(struct http_answers *answers, const uint8_t *bytes, size_t n)
{
	if (!n)
		return;
	answers->kept = realloc(answers->kept, answers->kept_bytes + n);
	MUST(answers->kept);
	memcpy(answers->kept + answers->kept_bytes, bytes, n);
	answers->kept_bytes += n;
	while (!answers->is_over && step(answers))
		;
}

void http_answers_end(struct http_answers *answers)
{
	if (!answers->is_over) {
		if (http_reader_finish(answers->reader))
			note_end(answers);
		else
			refuse(answers);
	}
	if (!answers->is_refused && answers->kept_bytes) {
		char more[32];
		snprintf(more, sizeof more, " +%zu", answers->kept_bytes);
		note_text(answers, more);
	}
}
