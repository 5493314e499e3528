/*
What a judge is asked, and what it answers: questions by a rubric (judges.h) as tokens, in packs of as many as fit, and
of each the logits of the words that it may answer with. A journal beside the result lets a stopped run resume.
*/
#ifndef SEAL_JUDGE_QUESTIONS_H
#define SEAL_JUDGE_QUESTIONS_H

#include "commands/eval_options.h"
#include "commands/judges.h"
#include "rows/chat_rows.h"
#include "run/journal.h"
#include "tokenizer.h"
#include "trainer.h"

// A text that the judge reads, and the places in it after which a word is asked for: several where what is asked is
// written one after the other.
typedef struct {
    int32_t* tokens;
    int n;  // 0: longer than the judge reads, or another of its item's texts is
    int item, n_places;
    int place[JUDGE_ANSWERS];    // token after which
    int reading[JUDGE_ANSWERS];  // of its item
    bool answered;
} Question;

typedef struct {
    const EvalOptions* o;
    const JudgeRubric* rubric;
    ModelConfig config;
    Tokenizer* tokenizer;
    ChatFormat chat;
    JinjaScratch* rendering;
    bool mixed;       // only the template's part of a text may spell special tokens
    PlainText plain;  // of the text at hand: the words that are not the template's
    TextRange ranges[8];
    Encoding encoding;
    const char* template_path;
    char* question;            // the template; NULL: the chat template alone
    const char* const* names;  // (n_names) what it has to contain
    int n_names;
    JudgeAnswer answers[JUDGE_ANSWERS];       // the rubric's, with the words that are asked for
    int word_id[JUDGE_ANSWERS][JUDGE_WORDS];  // their tokens, -1 before the first question
    int n_readings;                           // of an item: one for every branch of every answer
    Question* questions;
    int n, capacity;
    JudgeReading* readings;  // (n_items, n_readings)
    int n_items, item_capacity, too_long, longest;
    bool* unread;  // (n_items) an item that was too long
    Trainer trainer;
    Journal journal;
} Judge;

// Opens the judge's tokenizer, chat template and question. words: those of the one answer in place of the rubric's (2),
// or NULL.
void judge_open(Judge* j, const EvalOptions* o, const JudgeRubric* rubric, const char* const* words);
// Asks about texts in the order of j->names; returns the item's number.
int judge_ask(Judge* j, const char* const values[]);
// Loads the model and answers all that was asked. Under --dry-run that is the end.
void judge_answer(Judge* j);
// An item's readings (n_readings); NULL: it is longer than the judge reads.
const JudgeReading* judge_readings(const Judge* j, int item);
void judge_close(Judge* j);

#endif
