/* Charts as SVG text. See chart.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "commands/chart.h"
#include "base/error.h"
#include "base/text.h"

const char* const chart_colours[CHART_COLOURS] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                  "#e69f00", "#56b4e9", "#000000", "#8a8a00"};

void text_escaped(Text* t, const char* text) {
    static const struct {
        char c;
        const char* entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    for (const char* s = text; *s; s++) {
        const char* entity = NULL;
        for (size_t i = 0; i < sizeof entities / sizeof *entities; i++)
            if (entities[i].c == *s) entity = entities[i].entity;
        if (entity) text_add(t, entity, strlen(entity));
        else if ((unsigned char)*s >= 32 && *s != 127) text_add(t, s, 1);
        else text_add(t, " ", 1);
    }
}

// ---------------------------------------------------------------------------------------------------
// the frame: axes, ticks, grid

// The drawing's size and the plot's edges in it, and how values become places.
enum { WIDTH = 540, HEIGHT = 320, LEFT = 62, RIGHT = WIDTH - 16, BOTTOM = HEIGHT - 46, LEGEND_LINE = 17 };
typedef struct {
    double x_low, x_high, y_low, y_high;
    bool log_y;
    int top;
} Frame;

// What is far outside the axes stays just out of sight: a place is a short number.
static double place(double from, double share, double extent) { return from + fmin(fmax(share, -10.0), 10.0) * extent; }
static double place_x(const Frame* f, double x) {
    return place(LEFT, (x - f->x_low) / (f->x_high - f->x_low), RIGHT - LEFT);
}
static double place_y(const Frame* f, double y) {
    double share = f->log_y ? log(y / f->y_low) / log(f->y_high / f->y_low) : (y - f->y_low) / (f->y_high - f->y_low);
    return place(BOTTOM, share, f->top - BOTTOM);
}

// Values that axes can be made for: their differences and powers of ten stay in a double's range.
#define MOST_DRAWN 1e100
static bool drawable(double v) { return fabs(v) <= MOST_DRAWN; }

// 1, 2 or 5 times a power of ten, so that about `most` ticks cover the range.
static double tick_step(double range, int most) {
    double step = pow(10.0, floor(log10(range / most)));
    static const double factors[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++)
        if (range / (step * factors[i]) <= most) return step * factors[i];
    return step * 10;
}

static void extend(double* low, double* high, const double* v, int n) {
    for (int i = 0; i < n; i++) {
        if (!drawable(v[i])) continue;
        if (!(v[i] >= *low)) *low = v[i];
        if (!(v[i] <= *high)) *high = v[i];
    }
}

// The data's range, or what the axes ask for; never so narrow that a tick's step is lost in rounding. `margin`: share
// of the range left free on either side.
static void settle(double* low, double* high, double asked_low, double asked_high, double margin) {
    if (isnan(*low)) *low = 0.0, *high = 1.0;
    double room = (*high - *low) * margin;
    *low = isnan(asked_low) ? *low - room : asked_low;
    *high = isnan(asked_high) ? *high + room : asked_high;
    double size = fmax(fabs(*low), fabs(*high));
    if (!(*high - *low > fmax(1e-9 * size, 1 / MOST_DRAWN))) {
        double around = size > 1 / MOST_DRAWN ? 0.1 * size : 1.0;
        *low -= around;
        *high += around;
    }
}

static void tick_text(char* out, size_t size, double value) {
    double a = fabs(value);
    if (a < 1e-12) snprintf(out, size, "0");
    else if (a >= 1e6 || a < 1e-3) snprintf(out, size, "%.3g", value);
    else snprintf(out, size, "%.6g", value);
}

static void draw_y_tick(Text* out, const Frame* f, double value) {
    char text[32];
    double y = place_y(f, value);
    tick_text(text, sizeof text, value);
    text_printf(out,
                "<path d=\"M%d %.1fH%d\" stroke=\"#e3e3e3\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                LEFT, y, RIGHT, LEFT - 7, y + 4, text);
}

// Ticks from *first on, as multiples of the step.
static int ticks(double low, double high, double step, double* first) {
    *first = ceil(low / step - 1e-9);
    return (int)fmin(floor(high / step + 1e-9) - *first + 1.0, 100.0);
}

static void draw_frame(Text* out, const Frame* f, const ChartAxes* axes) {
    double first, step = tick_step(f->x_high - f->x_low, 6);
    int n = ticks(f->x_low, f->x_high, step, &first);
    for (int i = 0; i < n; i++) {
        char text[32];
        double x = (first + i) * step;
        tick_text(text, sizeof text, x);
        text_printf(
            out, "<path d=\"M%.1f %dv5\" stroke=\"#555\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
            place_x(f, x), BOTTOM, place_x(f, x), BOTTOM + 18, text);
    }
    if (f->log_y) {
        int decades = (int)ceil(log10(f->y_high / f->y_low));
        for (double power = pow(10.0, floor(log10(f->y_low))); power <= f->y_high; power *= 10.0)
            for (int i = 1; i <= 5; i += i == 1 ? 1 : 3) {  // 1, 2, 5
                double y = power * i;
                if (y >= f->y_low * 0.999 && y <= f->y_high * 1.001 && (i == 1 || decades <= 3)) draw_y_tick(out, f, y);
            }
    } else {
        step = tick_step(f->y_high - f->y_low, 5);
        n = ticks(f->y_low, f->y_high, step, &first);
        for (int i = 0; i < n; i++) draw_y_tick(out, f, (first + i) * step);
    }
    text_printf(out, "<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#555\"/>\n", LEFT, f->top, BOTTOM, RIGHT);
    text_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" fill=\"#222\">", (LEFT + RIGHT) / 2, HEIGHT - 8);
    text_escaped(out, axes->x_label);
    text_printf(out, "</text>\n<text transform=\"translate(15 %d) rotate(-90)\" text-anchor=\"middle\" fill=\"#222\">",
                (f->top + BOTTOM) / 2);
    text_escaped(out, axes->y_label);
    text_printf(out, "</text>\n");
}

static void begin_svg(Text* out, const ChartAxes* axes) {
    text_printf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" "
                "font-family=\"system-ui,sans-serif\" font-size=\"12\" fill=\"#444\">\n<title>",
                WIDTH, HEIGHT);
    text_escaped(out, axes->title);
    text_printf(out, "</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", WIDTH, HEIGHT);
}

// Characters of UTF-8 text: what a line of it is wide.
static int characters(const char* s) {
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}
#define CHARACTER 6.7  // width of one at font size 12, about

// ---------------------------------------------------------------------------------------------------
// lines

// Swatches and names in lines; with out NULL nothing is drawn. Returns the lower edge.
static int draw_legend(Text* out, const ChartSeries* series, int n) {
    double x = LEFT;
    int y = 14;
    for (int i = 0; i < n; i++) {
        double width = 26 + CHARACTER * characters(series[i].name) + 14;
        if (x > LEFT && x + width > RIGHT + 8) {
            x = LEFT;
            y += LEGEND_LINE;
        }
        if (out) {
            text_printf(out, "<path d=\"M%.1f %dh20\" stroke=\"%s\" stroke-width=\"3\"%s/><text x=\"%.1f\" y=\"%d\">",
                        x, y - 4, series[i].colour, series[i].dashed ? " stroke-dasharray=\"4 3\"" : "", x + 26, y);
            text_escaped(out, series[i].name);
            text_printf(out, "</text>\n");
        }
        x += width;
    }
    return y + 12;
}

static void draw_line(Text* out, const Frame* f, const ChartSeries* s) {
    bool pen_down = false;
    double first = NAN, last = NAN;
    text_printf(out, "<path d=\"");
    for (int i = 0; i < s->n; i++) {
        if (!drawable(s->x[i]) || !drawable(s->y[i]) || (f->log_y && s->y[i] <= 0.0)) {
            pen_down = false;
            continue;
        }
        if (isnan(first)) first = s->x[i];
        last = s->x[i];
        text_printf(out, "%c%.1f %.1f", pen_down ? 'L' : 'M', place_x(f, s->x[i]), place_y(f, s->y[i]));
        pen_down = true;
    }
    if (s->filled && !isnan(first))
        text_printf(out, "L%.1f %dL%.1f %dZ", place_x(f, last), BOTTOM, place_x(f, first), BOTTOM);
    text_printf(
        out, "\" fill=\"%s\" fill-opacity=\"0.22\" stroke=\"%s\" stroke-width=\"1.8\" stroke-linejoin=\"round\"%s/>\n",
        s->filled ? s->colour : "none", s->colour, s->dashed ? " stroke-dasharray=\"4 3\"" : "");
}

void chart_lines(Text* out, const ChartAxes* axes, const ChartSeries* series, int n) {
    Frame f = {NAN, NAN, NAN, NAN, axes->log_y, 0};
    for (int i = 0; i < n; i++) {
        extend(&f.x_low, &f.x_high, series[i].x, series[i].n);
        extend(&f.y_low, &f.y_high, series[i].y, series[i].n);
    }
    if (!(f.y_low > 1 / MOST_DRAWN)) f.log_y = false;
    settle(&f.x_low, &f.x_high, axes->x_low, axes->x_high, 0.0);
    settle(&f.y_low, &f.y_high, axes->y_low, axes->y_high, f.log_y ? 0.0 : 0.05);
    f.top = draw_legend(NULL, series, n);
    begin_svg(out, axes);
    draw_frame(out, &f, axes);
    for (int i = 0; i < n; i++) draw_line(out, &f, &series[i]);
    draw_legend(out, series, n);
    text_printf(out, "</svg>\n");
}

// ---------------------------------------------------------------------------------------------------
// points

typedef struct {
    double x, y, width;
} Label;  // left end of the base line

static double overlap(double a, double b, double c, double d) {
    double from = a > c ? a : c, to = b < d ? b : d;
    return to > from ? to - from : 0.0;
}

static double distance(const Label* l, double x, double y) {
    double dx = x < l->x ? l->x - x : x > l->x + l->width ? x - l->x - l->width : 0.0;
    return hypot(dx, y - (l->y - 4));
}

// How badly a label of points[own] is placed: on other labels, on points, nearer to another point than to its own,
// outside the plot.
static double trouble(const Label* l, int own, const Label* others, int n_others, const Frame* f,
                      const ChartPoint* points, int n) {
    double sum = 0.0, reach = distance(l, place_x(f, points[own].x), place_y(f, points[own].y));
    for (int i = 0; i < n_others; i++)
        sum += overlap(l->x - 3, l->x + l->width + 3, others[i].x, others[i].x + others[i].width) *
               overlap(l->y - 12, l->y + 3, others[i].y - 12, others[i].y + 3);
    for (int i = 0; i < n; i++) {
        double x = place_x(f, points[i].x), y = place_y(f, points[i].y);
        sum += overlap(l->x - 2, l->x + l->width + 2, x - 6, x + 6) * overlap(l->y - 11, l->y + 3, y - 6, y + 6);
        if (i != own && distance(l, x, y) < 0.8 * reach) sum += 40.0;
    }
    double outside = overlap(l->x, l->x + l->width, RIGHT + 12, 1e9) + overlap(l->x, l->x + l->width, -1e9, LEFT + 2);
    return sum + 20.0 * outside + 20.0 * overlap(l->y - 12, l->y, BOTTOM - 2, 1e9) +
           20.0 * overlap(l->y - 12, l->y, -1e9, f->top - 12);
}

void chart_points(Text* out, const ChartAxes* axes, const ChartPoint* points, int n) {
    Frame f = {NAN, NAN, NAN, NAN, false, 22};
    Label* labels = host_alloc(((size_t)n + 1) * sizeof *labels, "points");
    for (int i = 0; i < n; i++) {
        extend(&f.x_low, &f.x_high, &points[i].x, 1);
        extend(&f.y_low, &f.y_high, &points[i].y, 1);
    }
    settle(&f.x_low, &f.x_high, axes->x_low, axes->x_high, 0.05);
    settle(&f.y_low, &f.y_high, axes->y_low, axes->y_high, 0.05);
    begin_svg(out, axes);
    draw_frame(out, &f, axes);
    for (int i = 0; i < n; i++) {
        double x = place_x(&f, points[i].x), y = place_y(&f, points[i].y),
               width = CHARACTER * characters(points[i].name), least = INFINITY;
        for (int ring = 0; ring < 6; ring++)
            for (int where = 0; where < 8; where++) {
                double angle = where * 0.78539816339744831, reach = 10 + 17 * ring, dx = cos(angle) * reach,
                       dy = sin(angle) * reach;
                Label l = {x + dx - (dx < -1 ? width : dx > 1 ? 0 : width / 2), y + dy + 4, width};
                double cost = trouble(&l, i, labels, i, &f, points, n) + 3.0 * ring + 0.1 * where;
                if (cost < least) {
                    least = cost;
                    labels[i] = l;
                }
            }
        double near_x = labels[i].x > x           ? labels[i].x - 2
                        : labels[i].x + width < x ? labels[i].x + width + 2
                                                  : x,
               near_y = labels[i].y - 4;
        if (hypot(near_x - x, near_y - y) > 16)
            text_printf(out, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"#999\" stroke-width=\"0.8\"/>\n", x, y, near_x,
                        near_y);
    }
    for (int i = 0; i < n; i++) {
        text_printf(out,
                    "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"%s\" stroke=\"#fff\"/><text x=\"%.1f\" y=\"%.1f\" "
                    "fill=\"#222\">",
                    place_x(&f, points[i].x), place_y(&f, points[i].y), points[i].colour, labels[i].x, labels[i].y);
        text_escaped(out, points[i].name);
        text_printf(out, "</text>\n");
    }
    text_printf(out, "</svg>\n");
    free(labels);
}
