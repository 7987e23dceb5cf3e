//! Signed distances: negative inside, positive outside, in the units of the point that is asked about.

use super::raster::{Point, at};

/// A disc.
pub fn circle(p: Point, centre: Point, radius: f32) -> f32 {
    p.from(centre).length() - radius
}

/// An ellipse with its axes along x and y; exact at the edge, close to it nearly so.
pub fn ellipse(p: Point, centre: Point, half_width: f32, half_height: f32) -> f32 {
    let q = p.from(centre);
    let scaled = at(q.x / half_width, q.y / half_height);
    let slope = at(scaled.x / half_width, scaled.y / half_height).length();
    let k = scaled.length();
    if slope == 0.0 { -half_width.min(half_height) } else { k * (k - 1.0) / slope }
}

/// A box with rounded corners.
pub fn rounded_box(p: Point, centre: Point, half_width: f32, half_height: f32, corner: f32) -> f32 {
    let q = p.from(centre);
    let (x, y) = (q.x.abs() - half_width + corner, q.y.abs() - half_height + corner);
    at(x.max(0.0), y.max(0.0)).length() + x.max(y).min(0.0) - corner
}

/// A thick line with round ends.
pub fn capsule(p: Point, from: Point, to: Point, radius: f32) -> f32 {
    let (q, line) = (p.from(from), to.from(from));
    let along = ((q.x * line.x + q.y * line.y) / (line.x * line.x + line.y * line.y)).clamp(0.0, 1.0);
    at(q.x - line.x * along, q.y - line.y * along).length() - radius
}

/// A polygon, its corners in either direction.
pub fn polygon(p: Point, corners: &[Point]) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let mut previous = corners[corners.len() - 1];
    for &corner in corners {
        let (edge, q) = (previous.from(corner), p.from(corner));
        let along = ((q.x * edge.x + q.y * edge.y) / (edge.x * edge.x + edge.y * edge.y)).clamp(0.0, 1.0);
        let (x, y) = (q.x - edge.x * along, q.y - edge.y * along);
        nearest = nearest.min(x * x + y * y);
        if (corner.y > p.y) != (previous.y > p.y) && p.x < corner.x + (p.y - corner.y) * edge.x / edge.y {
            inside = !inside;
        }
        previous = corner;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

/// A five-pointed star around the origin, one point up.
pub fn star(p: Point, radius: f32, depth: f32) -> f32 {
    // Cosine and sine of 36°: a tenth of a turn, the angle between a point and the notch beside it.
    const C: f32 = 0.809_017;
    const S: f32 = 0.587_785_24;
    let fold = |q: Point, nx: f32, ny: f32| {
        let over = (q.x * nx + q.y * ny).max(0.0);
        at(q.x - 2.0 * over * nx, q.y - 2.0 * over * ny)
    };
    let mut q = at(p.x.abs(), -p.y);
    q = fold(q, C, -S);
    q = fold(q, -C, -S);
    q = at(q.x.abs(), q.y - radius);
    let edge = at(S * depth, C * depth - 1.0);
    let along = ((q.x * edge.x + q.y * edge.y) / (edge.x * edge.x + edge.y * edge.y)).clamp(0.0, radius);
    let away = at(q.x - edge.x * along, q.y - edge.y * along).length();
    if q.y * edge.x - q.x * edge.y > 0.0 { away } else { -away }
}

/// A heart, its tip at the origin and its lobes above, about 1.1 high and 1.2 wide.
pub fn heart(p: Point) -> f32 {
    const LOBE: f32 = 0.353_553_4;
    let (x, y) = (p.x.abs(), -p.y);
    if x + y > 1.0 {
        return at(x - 0.25, y - 0.75).length() - LOBE;
    }
    let half = 0.5 * (x + y).max(0.0);
    let nearest = at(x, y - 1.0).length().min(at(x - half, y - half).length());
    if x > y { nearest } else { -nearest }
}

/// Both shapes, melted together over `softness` where they meet.
pub fn melted(a: f32, b: f32, softness: f32) -> f32 {
    let h = (softness - (a - b).abs()).max(0.0) / softness;
    a.min(b) - h * h * softness * 0.25
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_negative_inside_and_grow_outside() {
        let square = [at(-1.0, -1.0), at(1.0, -1.0), at(1.0, 1.0), at(-1.0, 1.0)];
        assert!((polygon(at(0.0, 0.0), &square) + 1.0).abs() < 1e-6);
        assert!((polygon(at(3.0, 0.0), &square) - 2.0).abs() < 1e-6);
        assert!((rounded_box(at(0.0, 3.0), at(0.0, 0.0), 1.0, 2.0, 0.3) - 1.0).abs() < 1e-6);
        assert!((capsule(at(0.0, 2.0), at(-1.0, 0.0), at(1.0, 0.0), 0.5) - 1.5).abs() < 1e-6);
        assert!(ellipse(at(2.0, 0.0), at(0.0, 0.0), 2.0, 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_star_points_up_and_has_notches() {
        assert!(star(at(0.0, -0.97), 1.0, 0.5) < 0.0);
        assert!(star(at(0.0, 0.9), 1.0, 0.5) > 0.0);
        assert!(star(at(0.0, 0.0), 1.0, 0.5) < 0.0);
        assert!(star(at(0.5, -0.8), 1.0, 0.5) > 0.0);
    }

    #[test]
    fn the_heart_has_two_lobes_and_a_tip() {
        assert!(heart(at(0.0, -0.05)) < 0.0 && heart(at(0.0, 0.05)) > 0.0);
        assert!(heart(at(0.3, -1.0)) < 0.0 && heart(at(0.0, -1.08)) > 0.0);
    }
}
