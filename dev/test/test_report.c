/*
Reports: points land where their values say, curves are the means of the steps they name, shares are counted right, and
a page is self-contained whatever the names, labels and settings of its runs hold.
*/
#include <string.h>
#include <unistd.h>
#include "commands/chart.h"
#include "check.h"
#include "base/error.h"
#include "base/file.h"
#include "commands/report.h"
#include "commands/selector_file.h"
#include "refuses.h"
#include "scratch.h"

static int count(const char* text, const char* part) {
    int n = 0;
    for (const char* s = text; (s = strstr(s, part)); s += strlen(part)) n++;
    return n;
}
static char* page_of(const char** runs, int n, EvalOptions o) {
    size_t length;
    o.out = in_directory("page.html");
    o.quiet = true;
    if (!o.title) o.title = "a page";
    report_command(&o, &(StringList){runs, n});
    return file_read(o.out, 1 << 24, &length);
}

static void test_chart(void) {
    Text out = {0};
    double x[] = {0, 5, 10}, y[] = {0, 50, 100}, log_y[] = {0.01, 0.1, 1};
    ChartSeries series = {"s", "#123456", false, false, x, y, 3};
    chart_lines(&out, &(ChartAxes){"t", "x", "y", 0, 10, 0, 100, false}, &series, 1);
    // the plot spans 62 … 524 and 26 … 274
    check(strstr(out.s, "d=\"M62.0 274.0L293.0 150.0L524.0 26.0\"") != NULL,
          "a line's points are where their values say");
    check(count(out.s, ">20<") == 1 && count(out.s, ">100<") == 1 && count(out.s, ">2<") == 1 &&
              count(out.s, ">10<") == 1,
          "ticks are round numbers of the range");
    out.n = 0;
    series.y = log_y;
    chart_lines(&out, &(ChartAxes){"t", "x", "y", 0, 10, 0.01, 1, true}, &series, 1);
    check(strstr(out.s, "d=\"M62.0 274.0L293.0 150.0L524.0 26.0\"") != NULL && count(out.s, ">0.1<") == 1 &&
              count(out.s, ">0.05<") == 1,
          "a logarithmic axis places powers of ten evenly");
    out.n = 0;
    log_y[1] = NAN;
    chart_lines(&out, &(ChartAxes){"t", "x", "y", 0, 10, 0.01, 1, true}, &series, 1);
    check(strstr(out.s, "d=\"M62.0 274.0M524.0 26.0\"") != NULL, "a value that is none breaks the line");
    out.n = 0;
    chart_lines(&out, &(ChartAxes){"t", "x", "y", NAN, NAN, NAN, NAN, false},
                &(ChartSeries){"s", "#000", false, false, x, x, 1}, 1);
    check(!strstr(out.s, "nan") && !strstr(out.s, "inf"), "one point alone has axes");
    out.n = 0;
    chart_points(&out, &(ChartAxes){"t", "x", "y", 0, 100, 0, 100, false},
                 (ChartPoint[]){{"one", "#000", 50, 100}, {"<two>", "#000", 50, 100}}, 2);
    double labels[2][2];
    const char* at = strstr(out.s, "cx=\"293.0\" cy=\"22.0\"");
    for (int i = 0; i < 2 && at; i++, at = strstr(at + 1, "cx=\"293.0\" cy=\"22.0\""))
        sscanf(strstr(at, "<text x="), "<text x=\"%lf\" y=\"%lf\"", &labels[i][0], &labels[i][1]);
    check(count(out.s, "cx=\"293.0\" cy=\"22.0\"") == 2, "points are where their values say");
    check(fabs(labels[0][1] - labels[1][1]) >= 12 || fabs(labels[0][0] - labels[1][0]) >= 20,
          "names of points in one place do not overlap");
    check(strstr(out.s, "&lt;two&gt;") != NULL, "names are escaped");
    text_free(&out);
}

// A chart of few ticks, whose places are short numbers, whatever the values.
static void test_values(void) {
    static const double cases[][3] = {{0.1, 0.1, 0.1 + 2e-17},    {5e-324, 1.0, 1e-310},  {5e-324, 0.0, 1e-323},
                                      {-1e308, 1e308, 0.0},       {1e300, 1.0, 2.0},      {1e15, 1e15 + 0.25, 1e15},
                                      {INFINITY, -INFINITY, NAN}, {-5e-324, 5e-324, 0.0}, {1e-90, 1e-95, 1e-99},
                                      {1e100, 1e-100, 1.0},       {0.0, 1e-99, 1e-100}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int log_y = 0; log_y < 2; log_y++) {
            Text out = {0};
            double x[] = {1, 2, 3};
            chart_lines(&out, &(ChartAxes){"t", "x", "y", NAN, NAN, NAN, NAN, log_y},
                        &(ChartSeries){"s", "#000", false, false, x, cases[c], 3}, 1);
            chart_lines(&out, &(ChartAxes){"t", "x", "y", NAN, NAN, NAN, NAN, log_y},
                        &(ChartSeries){"s", "#000", false, false, cases[c], x, 3}, 1);
            chart_points(&out, &(ChartAxes){"t", "x", "y", 0, 100, 0, 100, false},
                         (ChartPoint[]){{"p", "#000", cases[c][0], cases[c][1]}}, 1);
            check(out.n < 100000 && count(out.s, "<text") < 600 && !strstr(out.s, "nan") && !strstr(out.s, "inf"),
                  "%g, %g, %g on a%s axis: %zu bytes", cases[c][0], cases[c][1], cases[c][2],
                  log_y ? " logarithmic" : "n even", out.n);
            text_free(&out);
        }
}

static void test_page(void) {
    static const char evil[] = "</title><script>alert(1)</script>";
    // a run of 300 steps whose loss is the step: means of 3
    directory_make(in_directory("runs/sft"));
    directory_make(in_directory("runs/sel<&>/selector"));
    Text log = {0};
    text_printf(&log, "{\"algorithm\":2,\"model\":\"%s\"}\n", "<b>\\\"x\\\"</b>");
    for (int i = 1; i <= 300; i++) text_printf(&log, "{\"step\":%d,\"loss\":%d,\"lr\":0.1}\n", i, i);
    text_printf(&log, "{\"step\":301,\"lo");
    put("runs/sft/log.jsonl", log.s);
    put("runs/sft/summary.json", "{\"command\":\"sft\",\"steps\":300,\"wall_s\":12.25}");
    int64_t rows[] = {0, 1, 2, 3};
    float logits[] = {0.0f, 1.0f, 2.0f, 3.0f};
    uint64_t hashes[4] = {0};
    SelectorFile s = {.n = 4, .n_rows = 4, .logits = logits, .rows = rows, .hashes = hashes, .activation = "softmax"};
    memset(s.digest, 'a', 64);
    selector_file_write(&s, in_directory("runs/sel<&>/selector/selector.safetensors"));
    const char* labels = put("labels.jsonl",
                             "{\"row\":0,\"kind\":\"unsafe\"}\n{\"row\":1,\"kind\":\"unsafe\"}\n{\"row\":2,\"kind\":\"<"
                             "i>\"}\n{\"row\":3,\"label\":\"<i>\"}\n");
    const char* table = put("table.json",
                            "[{\"method\":\"sft\",\"refusal\":25,\"task_accuracy\":75,\"auc\":0.5,\"note\":\"<u>\"},{"
                            "\"method\":\"sel<&>\",\"refusal\":100,\"task_accuracy\":50,\"other\":1.25}]");
    const char* runs[] = {in_directory("runs/sft"), in_directory("runs/sel<&>/selector")};
    int error = dup(2);
    if (!freopen("/dev/null", "w", stderr)) return;
    char* page = page_of(runs, 2, (EvalOptions){.labels = labels, .table = table, .title = evil});
    fflush(stderr);
    dup2(error, 2);
    check(!strstr(page, "<script") && !strstr(page, "<b>") && !strstr(page, "<i>") && !strstr(page, "<u>") &&
              strstr(page, "&lt;script&gt;"),
          "whatever texts hold is escaped");
    check(count(page, "http") == count(page, "http://www.w3.org/2000/svg") && !strstr(page, "src=") &&
              !strstr(page, "url(") && !strstr(page, "@import"),
          "nothing is fetched from elsewhere");
    check(count(page, "<svg") == 4 && count(page, "</svg>") == 4,
          "four charts: refusal against accuracy, the distribution, what is kept, the training loss");
    check(count(page, "<figure>") == count(page, "</figure>") && count(page, "<table") == count(page, "</table>") &&
              count(page, "<div") == count(page, "</div>"),
          "elements are closed");
    check(strstr(page, "means of 3 steps") != NULL, "300 steps are drawn as means of 3");
    // first mean: steps 1 … 3 at loss 2, the axis begins there (2 … 299, logarithmic); last: 299
    check(strstr(page, "d=\"M62.0 274.0L") != NULL && strstr(page, "L524.0 26.0\" fill=\"none\"") != NULL,
          "the curve begins at the first mean and ends at the last");
    check(strstr(page, ">sel&lt;&amp;&gt;/selector<") && strstr(page, ">sft<") && !strstr(page, directory + 1),
          "runs are named without the folders they share");
    check(strstr(page, "12.2") && strstr(page, ">0.5000<") && strstr(page, ">25.0<") && strstr(page, ">1.25<"),
          "figures of runs and table are there");
    // the best half: rows 3 and 2, all of label <i>, nothing unsafe
    check(strstr(page, "L293.0 274.0") && strstr(page, "L293.0 26.0"),
          "the best half keeps all of one label and none of the other");
    free(page);
    text_free(&log);
}

typedef struct {
    const char** runs;
    int n;
    EvalOptions options;
} Page;
static void make_page(const void* context) {
    const Page* p = context;
    page_of(p->runs, p->n, p->options);
}

static void test_refusals(void) {
    char run[256];
    snprintf(run, sizeof run, "%s", in_directory("runs/sel<&>/selector"));
    const char *good[] = {run}, *none[] = {in_directory("runs")};
    check(refuses(make_page, &(Page){none, 1, (EvalOptions){0}}, "not the folder of a run: it has no log.jsonl"),
          "a folder that is not a run is refused");
    check(refuses(make_page, &(Page){good, 0, (EvalOptions){0}}, "give the folders"), "no folder at all is refused");
    check(refuses(make_page, &(Page){good, 1, {.table = put("object.json", "{}")}}, "expected a list of objects"),
          "a table that is none is refused");
    check(refuses(make_page, &(Page){good, 1, {.table = put("lists.json", "[[1]]")}}, "expected a list of objects"),
          "so is one of lists");
    check(
        refuses(make_page, &(Page){good, 1, {.labels = put("far.jsonl", "{\"row\":4000000000,\"kind\":\"unsafe\"}\n")}},
                "far beyond the number of lines"),
        "a row that would fill the memory is refused");
    check(refuses(make_page, &(Page){good, 1, {.labels = put("far2.jsonl", "{\"row\":1e300,\"kind\":\"unsafe\"}\n")}},
                  "far beyond"),
          "and one beyond all integers");
    check(refuses(make_page, &(Page){good, 1, {.table = put("page.html", "[]")}}, "it would be overwritten"),
          "a page does not take the place of its table");
    check(refuses(make_page, &(Page){good, 1, {.labels = put("few.jsonl", "{\"row\":0,\"kind\":\"unsafe\"}\n")}},
                  "row 1 has no label"),
          "labels of too few rows are refused");
    check(refuses(make_page, &(Page){good, 1, {.labels = put("bad.jsonl", "{\"row\":0}\n")}},
                  "bad.jsonl:1: row 0 has no text \"kind\""),
          "a line without a label is refused");
}

int main(void) {
    program_name = "test_report";
    strcpy(directory, "/tmp/test_report_XXXXXX");
    if (!mkdtemp(directory)) return 1;
    test_chart();
    test_values();
    test_page();
    test_refusals();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
