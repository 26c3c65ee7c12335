//! What comes in one call is done together, and each part has an outcome of its own.

/// Does together what may be done; everything has its outcome in its place.
pub(crate) async fn together<A, T, E, F>(
    asked: Vec<Result<A, E>>,
    act: impl FnOnce(Vec<A>) -> F,
) -> Vec<Result<T, E>>
where
    F: Future<Output = Vec<Result<T, E>>>,
{
    let mut taken = Vec::with_capacity(asked.len());
    let asked = asked
        .into_iter()
        .map(|asked| asked.map(|asked| taken.push(asked)));
    let places: Vec<Result<(), E>> = asked.collect();
    let mut outcomes = act(taken).await.into_iter();
    let placed = places.into_iter().filter_map(|place| match place {
        Ok(()) => outcomes.next(),
        Err(no) => Some(Err(no)),
    });
    placed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_outcome_is_in_its_place() {
        let asked = vec![Ok(1), Err("bad"), Ok(2), Ok(3), Err("worse")];
        let outcomes = together(asked, |taken| async move {
            assert_eq!(taken, [1, 2, 3]);
            vec![Ok(10), Err("refused"), Ok(30)]
        });
        let expected = [Ok(10), Err("bad"), Err("refused"), Ok(30), Err("worse")];
        assert_eq!(outcomes.await, expected);
    }
}
