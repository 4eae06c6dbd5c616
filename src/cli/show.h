/* The answers of a server, for people. What is missing in an answer is left out or 0. */
#pragma once

#include <jansson.h>
#include <stdio.h>

void show_status(const json_t *reply);
void show_generations(const json_t *reply);

/* A text that came from elsewhere: nothing in it reaches the terminal as a command. */
void show_text(FILE *to, const char *text);
