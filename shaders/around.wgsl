// The symbols around a position. Needs: common, contexts, and `symbols`, the symbols of all items.

fn capped(index: u32) -> u32 {
    return min(magnitude_of(symbols[index]), CAP);
}

// 2 |left| + 2 |up| + |up left| + |up right| of the symbol at `index`.
fn around(index: u32, sides: Sides) -> u32 {
    let row = params.columns * params.coded;
    var sum = 0u;
    if (sides.left) {
        sum += 2u * capped(index - params.coded);
    }
    if (sides.up) {
        sum += 2u * capped(index - row);
    }
    if (sides.up_left) {
        sum += capped(index - row - params.coded);
    }
    if (sides.up_right) {
        sum += capped(index - row + params.coded);
    }
    return sum;
}
