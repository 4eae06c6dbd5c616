#include "support/http_table.h"

#include "support/must.h"

#include <ctype.h>
#include <string.h>

enum { LINE_BYTES = 20000, BYTES_MAX = 20000, UNIT_MAX = 64 };

static uint8_t unescape(const char **at)
{
	const char *text = *at;
	*at += text[0] == '\\' ? 2 : 1;
	if (text[0] != '\\')
		return (uint8_t)text[0];
	switch (text[1]) {
	case 'r':
		return '\r';
	case 'n':
		return '\n';
	case 't':
		return '\t';
	case '0':
		return '\0';
	}
	MUST(text[1] == 'x');
	*at += 2;
	return (uint8_t)strtoul((char[]){ text[2], text[3], 0 }, NULL, 16);
}

static void put_byte(struct http_row *row, uint8_t byte)
{
	MUST(row->n < BYTES_MAX);
	row->bytes[row->n++] = byte;
}

/* "{text*9}" */
static void put_repeated(struct http_row *row, const char **at)
{
	uint8_t unit[UNIT_MAX];
	size_t n = 0;
	for ((*at)++; **at != '*'; n++) {
		MUST(n < UNIT_MAX);
		unit[n] = unescape(at);
	}
	unsigned long times = strtoul(*at + 1, (char **)at, 10);
	MUST(**at == '}');
	(*at)++;
	for (; times; times--)
		for (size_t i = 0; i < n; i++)
			put_byte(row, unit[i]);
}

static struct http_row *new_row(struct http_table *table)
{
	struct http_row *rows = realloc(table->rows, (table->count + 1) * sizeof *rows);
	MUST(rows);
	table->rows = rows;
	return &rows[table->count++];
}

static void read_row(struct http_table *table, char *line, bool quoted)
{
	char *what = line + 2, *cell = strstr(line, " | `");
	char *answer = cell ? strstr(cell + 4, quoted ? "` | `" : "` | ") : NULL;
	size_t skipped = quoted ? 5 : 4;
	char *end = answer ? strstr(answer + skipped, quoted ? "` |" : " |") : NULL;
	if (!end || !(quoted || isdigit((unsigned char)answer[skipped])))
		return;
	*cell = *answer = *end = '\0';
	struct http_row *row = new_row(table);
	*row = (struct http_row){ strdup(what), strdup(answer + skipped), malloc(BYTES_MAX), 0 };
	MUST(row->what && row->answer && row->bytes);
	for (const char *at = cell + 4; *at;) {
		if (*at == '{')
			put_repeated(row, &at);
		else
			put_byte(row, unescape(&at));
	}
}

void http_table_read(struct http_table *table, const char *path, bool quoted)
{
	static char line[LINE_BYTES];
	*table = (struct http_table){ 0 };
	FILE *file = fopen(path, "r");
	MUST(file);
	while (fgets(line, sizeof line, file))
		if (!strncmp(line, "| ", 2))
			read_row(table, line, quoted);
	fclose(file);
}

void http_table_free(struct http_table *table)
{
	for (unsigned i = 0; i < table->count; i++) {
		free(table->rows[i].what);
		free(table->rows[i].answer);
		free(table->rows[i].bytes);
	}
	free(table->rows);
}
