# Numbers at random that are the same in every awk, whose rand() differs from one to the next: draw_from(SEED), then
# draw() in [0, 1). Park and Miller's generator: exact in doubles. Scripts put this before a program of their own.
function draw_from(seed) { drawn = seed + 1000003; draw(); draw(); draw() }
function draw() { drawn = drawn * 16807 % 2147483647; return drawn / 2147483647 }
