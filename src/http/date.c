#include "http/date.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char DAYS[] = "SunMonTueWedThuFriSat", MONTHS[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

void http_date_print(char text[HTTP_DATE_BYTES + 1], int64_t second)
{
	enum { YEAR_MAX = 9999 };
	char longer[64];
	time_t at = (time_t)second;
	struct tm tm = { 0 };
	gmtime_r(&at, &tm);
	unsigned year = (unsigned)tm.tm_year + 1900;
	snprintf(longer, sizeof longer, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", DAYS + 3 * tm.tm_wday,
		 (unsigned)tm.tm_mday % 100, MONTHS + 3 * tm.tm_mon, year > YEAR_MAX ? YEAR_MAX : year,
		 (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
	memcpy(text, longer, HTTP_DATE_BYTES);
	text[HTTP_DATE_BYTES] = '\0';
}

/* Which of the names of three letters it is; -1: none. */
static int name_at(const char *names, const char *text)
{
	for (int i = 0; names[3 * i]; i++)
		if (!memcmp(names + 3 * i, text, 3))
			return i;
	return -1;
}

static bool digits_at(const char *text, int n, int *value)
{
	*value = 0;
	for (int i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*value = 10 * *value + (text[i] - '0');
	}
	return true;
}

/* What stands between the parts. */
static bool has_form(const char *text)
{
	static const char FORM[] = "___, __ ___ ____ __:__:__ GMT";
	for (size_t i = 0; i < HTTP_DATE_BYTES; i++)
		if (FORM[i] != '_' && FORM[i] != text[i])
			return false;
	return true;
}

bool http_date_read(const char *text, size_t n, int64_t *second)
{
	struct tm tm = { 0 };
	if (n != HTTP_DATE_BYTES || !has_form(text) || name_at(DAYS, text) < 0)
		return false;
	tm.tm_mon = name_at(MONTHS, text + 8);
	if (tm.tm_mon < 0 || !digits_at(text + 5, 2, &tm.tm_mday) || !digits_at(text + 12, 4, &tm.tm_year) ||
	    !digits_at(text + 17, 2, &tm.tm_hour) || !digits_at(text + 20, 2, &tm.tm_min) ||
	    !digits_at(text + 23, 2, &tm.tm_sec))
		return false;
	if (tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return false;
	tm.tm_year -= 1900;
	*second = (int64_t)timegm(&tm);
	return true;
}
